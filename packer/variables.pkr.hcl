# What every source takes. `vmrunner image build --provider` passes these in a -var-file.

variable "base" {
  description = "The vendor's image to start from: debian-13 or ubuntu-24.04."
  type        = string
  default     = "debian-13"
  validation {
    condition     = contains(["debian-13", "ubuntu-24.04"], var.base)
    error_message = "The base must be debian-13 or ubuntu-24.04."
  }
}

variable "image_name" {
  description = "The name of the finished image: lower-case letters, digits and dashes, as both clouds take it."
  type        = string
  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{1,61}[a-z0-9]$", var.image_name))
    error_message = "The image_name must be 3 to 63 lower-case letters, digits and dashes, from a letter on, and not end in a dash."
  }
}

variable "stage_dir" {
  description = "What goes into the image, as `vmrunner image stage DIR` makes it: supervisor/, image.json, packages.txt, containers.json."
  type        = string
  validation {
    condition     = length(var.stage_dir) > 0
    error_message = "The stage_dir must be a directory that `vmrunner image stage DIR` made."
  }
}

variable "recipe_hash" {
  description = "The recipe's hash, which the stage's image.json must say too; empty: not compared."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^([0-9a-f]{8,64})?$", var.recipe_hash))
    error_message = "The recipe_hash must be hexadecimal digits, as image.json has it."
  }
}

variable "created" {
  description = "When the build began, in epoch seconds; shown in the image's description."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^[0-9]*$", var.created))
    error_message = "The value of created must be whole epoch seconds."
  }
}

variable "run_tags" {
  description = "Tags (EC2, Azure) or labels (GCE) of the builder and all that is born with it: installation, generation, role image, expires-at."
  type        = map(string)
  default     = {}
}

variable "image_tags" {
  description = "Tags (EC2) or labels (GCE) of the finished image and its snapshot: image-of, and what you like. Not those that say that something must end."
  type        = map(string)
  default     = {}
  validation {
    condition     = length(setintersection(keys(var.image_tags), ["vmrunner:expires-at", "vmrunner:role", "vmrunner:installation", "vmrunner-expires-at", "vmrunner-role", "vmrunner-installation"])) == 0
    error_message = "The image_tags must not have expires-at, role or installation: reaper and guard would take the finished image for what a VM left. Use image-of."
  }
}

variable "user_data_file" {
  description = "User-data that arms the guest's own deadline in the first boot stage. It must leave the base's default user as it is. Null: the deadline is armed when SSH answers."
  type        = string
  default     = null
}

variable "max_run_seconds" {
  description = "So long a builder may live, in seconds: the guest powers itself off then, and GCE deletes it."
  type        = number
  default     = 3600
  validation {
    condition     = var.max_run_seconds >= 300 && var.max_run_seconds <= 10368000
    error_message = "The max_run_seconds must be from 300 to 10368000, which is GCE's 120 days."
  }
}

variable "disk_gib" {
  description = "The disk of the builder and the image, in GiB; a VM's may be larger."
  type        = number
  default     = 10
  validation {
    condition     = var.disk_gib >= 8 && var.disk_gib <= 1024
    error_message = "The disk_gib must be from 8 to 1024."
  }
}

variable "registry_mirror" {
  description = "A mirror of Docker Hub that Docker asks first, in the builder and in the image, as a URL; empty: none."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^(https?://[A-Za-z0-9.:/_-]+)?$", var.registry_mirror))
    error_message = "The registry_mirror must be an http:// or https:// URL."
  }
}

variable "address_pool" {
  description = "The private range from which Docker cuts networks of /24 for builds that make some."
  type        = string
  default     = "172.18.0.0/16"
  validation {
    condition     = can(cidrnetmask(var.address_pool))
    error_message = "The address_pool must be a range such as 172.18.0.0/16."
  }
}

variable "userns" {
  description = "Give containers a user namespace of their own: root in one is nobody in the VM."
  type        = bool
  default     = false
}
