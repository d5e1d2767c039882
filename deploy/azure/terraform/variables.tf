variable "installation" {
  description = "Whose VMs: the installation of vmrunner's ledger (vmrunner config show)."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.installation))
    error_message = "A UUID in lower case, as `vmrunner config show` prints it."
  }
}

variable "location" {
  description = "The region of the group, the network and the function."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]+$", var.location))
    error_message = "A region's name, such as westeurope."
  }
}

variable "resource_group" {
  description = "The name of the group that is made for this installation's VMs; the guard's is RESOURCE_GROUP-guard."
  type        = string
  default     = "vmrunner"

  validation {
    condition     = can(regex("^[A-Za-z0-9_()-][A-Za-z0-9_.()-]{0,80}[A-Za-z0-9_()-]$", var.resource_group))
    error_message = "2 to 82 letters, digits, dots, dashes, underscores and brackets, without a dot at either end."
  }
}

variable "principals" {
  description = "Whom vmrunner signs in as: the object ids of managed identities, service principals or groups, each under a name of your choice."
  type        = map(string)

  validation {
    condition     = alltrue([for one in values(var.principals) : can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", one))])
    error_message = "Object ids, as `az ad sp show --id APP --query id` prints them."
  }
}

variable "ssh_sources" {
  description = "Whence vmrunner reaches its VMs on port 22: addresses or ranges. Nobody else is let in."
  type        = list(string)

  validation {
    condition     = length(var.ssh_sources) > 0 && alltrue([for one in var.ssh_sources : can(cidrhost(strcontains(one, "/") ? one : "${one}/32", 0)) && !endswith(one, "/0")])
    error_message = "At least one address or range such as 203.0.113.0/24, and never all of the internet."
  }
}

variable "address_space" {
  description = "The private range of the VMs' network."
  type        = string
  default     = "10.77.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.address_space))
    error_message = "A range such as 10.77.0.0/16."
  }
}

variable "deny_untagged" {
  description = "Deny every VM of the group that is born without vmrunner's installation, role and deadline."
  type        = bool
  default     = true
}

variable "all_installations" {
  description = "Mind every installation's VMs in the group."
  type        = bool
  default     = false
}

variable "dry_run" {
  description = "Let the guard only tell what it would delete, and delete nothing."
  type        = bool
  default     = false
}

variable "grace_seconds" {
  description = "So long past its deadline a VM is left to vmrunner itself."
  type        = number
  default     = 480

  validation {
    condition     = var.grace_seconds >= 0 && var.grace_seconds <= 86400
    error_message = "At most a day."
  }
}

variable "max_ttl_seconds" {
  description = "limits.max_ttl of vmrunner's configuration: the longest life of any VM."
  type        = number
  default     = 14400

  validation {
    condition     = var.max_ttl_seconds > 0
    error_message = "More than nothing."
  }
}

variable "action_groups" {
  description = "Whom the alerts notify: ids of action groups."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for one in var.action_groups : can(regex("(?i)/providers/Microsoft.Insights/actionGroups/[^/]+$", one))])
    error_message = "/subscriptions/…/providers/Microsoft.Insights/actionGroups/NAME."
  }
}

variable "tags" {
  description = "On all that can be tagged, beside vmrunner's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, _ in var.tags : !startswith(lower(key), "vmrunner:")])
    error_message = "Tags that begin with vmrunner: are vmrunner's own."
  }
}
