# A version in a gallery of Azure's, or a managed image. Nothing in Azure ends the builder by itself, and one that switches itself
# off is billed on: who ends it, if Packer cannot, is vmrunner's reaper or the guard, by its tags.

variable "azure_subscription" {
  description = "The subscription of builder and image."
  type        = string
  default     = null
}

variable "azure_resource_group" {
  description = "The group of builder and image, and the region of both: the one that the guard minds."
  type        = string
  default     = null
}

variable "azure_vm_size" {
  description = "The builder's size, x86_64."
  type        = string
  default     = "Standard_D2s_v5"
}

variable "azure_virtual_network" {
  description = "The builder's virtual network, whose security group lets this machine in on port 22."
  type        = string
  default     = null
}

variable "azure_subnet" {
  description = "The builder's subnet in it."
  type        = string
  default     = null
}

variable "azure_network_resource_group" {
  description = "The group of that network; null: looked for."
  type        = string
  default     = null
}

variable "azure_internal_address" {
  description = "Reach the builder by its internal address, and give it no public one (it then needs a NAT gateway)."
  type        = bool
  default     = false
}

variable "azure_spot" {
  description = "Build on a spot VM: cheaper, and the build fails when Azure takes it back."
  type        = bool
  default     = false
}

variable "azure_builder_name" {
  description = "The name of the builder, its disk and its interface; null: ones by Packer. Whoever starts Packer can delete them by it."
  type        = string
  default     = null
  validation {
    condition     = var.azure_builder_name == null || can(regex("^[a-z][-a-z0-9]{0,61}[a-z0-9]$", var.azure_builder_name))
    error_message = "The azure_builder_name must be lower-case letters, digits and dashes, at most 63."
  }
}

variable "azure_cli_auth" {
  description = "Sign in as `az login` did. False: by ARM_CLIENT_ID and its kin, else as this machine's managed identity."
  type        = bool
  default     = false
}

variable "azure_disk_controller" {
  description = "The builder's disk controller, SCSI or NVMe; null: Azure's choice."
  type        = string
  default     = null
}

variable "azure_gallery" {
  description = "The gallery in the group that the image is put in, as a version; null: a managed image is made."
  type        = string
  default     = null
}

variable "azure_gallery_image" {
  description = "The definition in it, which is there: of generation V2, with DiskControllerTypes = SCSI, NVMe."
  type        = string
  default     = null
}

variable "azure_gallery_version" {
  description = "The version's number, MAJOR.MINOR.PATCH."
  type        = string
  default     = null
}

variable "azure_gallery_replicas" {
  description = "Copies of the version in the group's region. Each serves 20 starts at once."
  type        = number
  default     = 1
}

source "azure-arm" "vmrunner" {
  subscription_id    = var.azure_subscription
  use_azure_cli_auth = var.azure_cli_auth

  os_type         = "Linux"
  image_publisher = local.base.azure_publisher
  image_offer     = local.base.azure_offer
  image_sku       = local.base.azure_sku
  vm_size         = var.azure_vm_size

  disk_controller_type = var.azure_disk_controller

  # A builder is a VM like any other: in the installation's group, tagged in the call that makes it,
  # without an identity. A group of its own would be out of the guard's sight.
  build_resource_group_name = var.azure_resource_group
  temp_compute_name         = var.azure_builder_name
  temp_nic_name             = var.azure_builder_name
  temp_os_disk_name         = var.azure_builder_name
  os_disk_size_gb           = max(30, var.disk_gib) # as large as the bases at least
  custom_data_file          = var.user_data_file
  # The plugin has one set of tags for the builder and the image.
  azure_tags = merge(var.run_tags, var.image_tags)
  spot {
    eviction_policy = var.azure_spot ? "Delete" : ""
  }

  # An existing network, or the plugin makes one that lets all of the internet in.
  virtual_network_name                   = var.azure_virtual_network
  virtual_network_subnet_name            = var.azure_subnet
  virtual_network_resource_group_name    = var.azure_network_resource_group
  private_virtual_network_with_public_ip = !var.azure_internal_address

  communicator                 = "ssh"
  ssh_username                 = "packer"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = "10m"

  managed_image_name                = var.azure_gallery == null ? var.image_name : null
  managed_image_resource_group_name = var.azure_gallery == null ? var.azure_resource_group : null

  # Without a gallery's name the plugin publishes nothing. The version is made of the builder itself,
  # in its region, and has its tags.
  shared_image_gallery_destination {
    resource_group = var.azure_resource_group
    gallery_name   = var.azure_gallery
    image_name     = var.azure_gallery_image
    image_version  = var.azure_gallery_version
  }
  shared_image_gallery_replica_count = var.azure_gallery_replicas
  shared_image_gallery_timeout       = "30m"

  polling_duration_timeout = "15m"
}
