# What closes the VMs of builds with `network: none`: a rule that denies what goes out from VMs with
# a tag, which goes into the provider's table as `network_tags_none`.

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
  }
}

variable "project" {
  description = "The project of the builds."
  type        = string
}

variable "network" {
  description = "The builds' network, by name or link."
  type        = string
}

variable "ssh_from" {
  description = "Where vmrunner runs: ranges from which SSH is let in."
  type        = list(string)
}

variable "tag" {
  description = "The network tag of such VMs."
  type        = string
  default     = "vmrunner-none"
}

resource "google_compute_firewall" "ssh" {
  project       = var.project
  name          = "${var.tag}-ssh"
  network       = var.network
  direction     = "INGRESS"
  source_ranges = var.ssh_from
  target_tags   = [var.tag]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# Before every other rule. Answers to SSH go out all the same: rules know connections.
resource "google_compute_firewall" "none" {
  project            = var.project
  name               = "${var.tag}-out"
  network            = var.network
  direction          = "EGRESS"
  priority           = 0
  destination_ranges = ["0.0.0.0/0"]
  target_tags        = [var.tag]

  deny {
    protocol = "all"
  }
}

output "network_tags_none" {
  value = [var.tag]
}
