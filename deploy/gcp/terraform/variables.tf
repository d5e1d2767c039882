variable "project" {
  description = "The project in which VMs are launched."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The id of a project, such as acme-ci."
  }
}

variable "region" {
  description = "Where the function runs; it minds all zones and regions of the project."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region, such as europe-west1."
  }
}

variable "installation" {
  description = "Whose VMs: the installation of vmrunner's ledger (vmrunner config show)."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.installation))
    error_message = "A UUID in lower case, as `vmrunner config show` prints it."
  }
}

variable "all_installations" {
  description = "Mind every installation's VMs in the project."
  type        = bool
  default     = false
}

variable "grace_seconds" {
  description = "So long past its deadline a VM is left to vmrunner and to Compute Engine."
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

variable "notification_channels" {
  description = "Whom the alert notifies: names of notification channels."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for one in var.notification_channels : can(regex("^projects/.+/notificationChannels/.+$", one))])
    error_message = "projects/PROJECT/notificationChannels/ID."
  }
}

variable "labels" {
  description = "On all that can be labelled, beside vmrunner's own."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, _ in var.labels : !startswith(key, "vmrunner-")])
    error_message = "Labels that begin with vmrunner- are vmrunner's own."
  }
}
