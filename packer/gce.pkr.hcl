# An image of Compute Engine. The cloud itself deletes the builder after max_run_seconds.

variable "gce_project" {
  description = "The project of builder and image."
  type        = string
  default     = null
}

variable "gce_zone" {
  description = "The builder's zone."
  type        = string
  default     = null
}

variable "gce_machine_type" {
  description = "The builder's type, x86_64."
  type        = string
  default     = "e2-standard-2"
}

variable "gce_disk_type" {
  description = "The type of the builder's disk, as its machine type takes it."
  type        = string
  default     = "pd-balanced"
}

variable "gce_network" {
  description = "The builder's network, by name or link, which lets this machine in on port 22; null: the subnetwork's, else `default`."
  type        = string
  default     = null
}

variable "gce_subnetwork" {
  description = "The builder's subnetwork; null: the network's own choice."
  type        = string
  default     = null
}

variable "gce_network_tags" {
  description = "Network tags of the builder, by which firewall rules may go."
  type        = list(string)
  default     = []
}

variable "gce_internal_address" {
  description = "Reach the builder by its internal address, and give it no external one (it then needs Cloud NAT)."
  type        = bool
  default     = false
}

variable "gce_instance_name" {
  description = "The builder's name; null: one by Packer."
  type        = string
  default     = null
  validation {
    condition     = var.gce_instance_name == null || can(regex("^[a-z][-a-z0-9]{0,61}[a-z0-9]$", var.gce_instance_name))
    error_message = "The gce_instance_name must be lower-case letters, digits and dashes, at most 63."
  }
}

variable "gce_disk_name" {
  description = "The name of the builder's disk; null: the builder's. The disk has no labels and outlives a builder that the cloud deletes: whoever starts Packer deletes it by this name."
  type        = string
  default     = null
  validation {
    condition     = var.gce_disk_name == null || can(regex("^[a-z][-a-z0-9]{0,61}[a-z0-9]$", var.gce_disk_name))
    error_message = "The gce_disk_name must be lower-case letters, digits and dashes, at most 63."
  }
}

variable "gce_image_family" {
  description = "The family that the image joins; null: none."
  type        = string
  default     = null
}

variable "gce_endpoint" {
  description = "Another endpoint of Compute Engine's API, such as http://127.0.0.1:5001/compute/v1/; null: Google's."
  type        = string
  default     = null
}

variable "gce_access_token" {
  description = "What is shown to it instead of the caller's own credentials; null: those."
  type        = string
  default     = null
  sensitive   = true
}

source "googlecompute" "vmrunner" {
  project_id              = var.gce_project
  custom_endpoints        = var.gce_endpoint == null ? null : { compute = var.gce_endpoint }
  access_token            = var.gce_access_token
  zone                    = var.gce_zone
  machine_type            = var.gce_machine_type
  source_image_family     = local.base.gce_family
  source_image_project_id = [local.base.gce_project]

  # A builder is a VM like any other: labelled, with the cloud's own deadline, without an account,
  # a shielded VM.
  instance_name                   = var.gce_instance_name
  labels                          = var.run_tags
  max_run_duration_in_seconds     = var.max_run_seconds
  instance_termination_action     = "DELETE"
  disable_default_service_account = true
  enable_secure_boot              = true
  enable_vtpm                     = true
  enable_integrity_monitoring     = true
  disk_name                       = var.gce_disk_name
  disk_size                       = var.disk_gib
  disk_type                       = var.gce_disk_type

  metadata = {
    block-project-ssh-keys = "TRUE"
    serial-port-enable     = "FALSE"
  }
  # Heard where the base has cloud-init, which Google's Debian has not.
  metadata_files = { for path in [var.user_data_file] : "user-data" => path if path != null }

  network          = var.gce_network
  subnetwork       = var.gce_subnetwork
  tags             = var.gce_network_tags
  omit_external_ip = var.gce_internal_address
  use_internal_ip  = var.gce_internal_address

  communicator                 = "ssh"
  ssh_username                 = "packer"
  use_os_login                 = false
  temporary_key_pair_type      = "ed25519"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = "10m"

  image_name        = var.image_name
  image_family      = var.gce_image_family
  image_description = local.description
  image_labels      = var.image_tags

  state_timeout = "10m"
}
