variable "installation" {
  description = "The installation whose VMs are minded: the UUID in the file `installation` beside the ledger, or of VMRUNNER_INSTALLATION."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.installation))
    error_message = "installation must be a UUID in lower case, such as 6f1c0a4e-7d0b-4c1f-9a52-0d3c5be1f7a4."
  }
}

variable "all_installations" {
  description = "Mind the VMs of every installation of vmrunner in the account, not only of this one."
  type        = bool
  default     = false
}

variable "regions" {
  description = "The regions to mind; none: all that the account has enabled. Name them where a policy denies the others."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for region in var.regions : can(regex("^[a-z]{2,}(-[a-z0-9]+)+-[0-9]+$", region))])
    error_message = "regions must be names such as eu-west-1."
  }
}

variable "grace_seconds" {
  description = "How long past its deadline a VM is left to vmrunner itself."
  type        = number
  default     = 480

  validation {
    condition     = var.grace_seconds >= 0 && var.grace_seconds <= 86400 && floor(var.grace_seconds) == var.grace_seconds
    error_message = "grace_seconds must be whole, from 0 to 86400."
  }
}

variable "max_ttl_seconds" {
  description = "The longest life of any VM: `limits.max_ttl` of vmrunner's configuration, in seconds. What is older ends where its own tags cannot be read."
  type        = number
  default     = 14400

  validation {
    condition     = var.max_ttl_seconds >= 60 && floor(var.max_ttl_seconds) == var.max_ttl_seconds
    error_message = "max_ttl_seconds must be whole, and at least 60."
  }
}

variable "alarm_actions" {
  description = "ARNs that the alarms notify, such as SNS topics; none: nobody hears them."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_actions : startswith(arn, "arn:")])
    error_message = "alarm_actions must be ARNs."
  }
}

variable "tags" {
  description = "Tags of every resource, beside vmrunner's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(key, "vmrunner:") && !startswith(lower(key), "aws:")])
    error_message = "tags must not begin with vmrunner: or aws:."
  }
}
