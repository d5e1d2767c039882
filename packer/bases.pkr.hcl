# What an image starts from: the newest official one of its vendor.
locals {
  bases = {
    "debian-13" = {
      aws_owner       = "136693071363" # Debian
      aws_name        = "debian-13-amd64-*"
      aws_device      = "/dev/xvda"
      aws_user        = "admin"
      azure_publisher = "Debian"
      azure_offer     = "debian-13"
      azure_sku       = "13-gen2"
      gce_project     = "debian-cloud"
      gce_family      = "debian-13"
      qemu_url        = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"
      qemu_digests    = "https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"
    }
    "ubuntu-24.04" = {
      aws_owner       = "099720109477" # Canonical
      aws_name        = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"
      aws_device      = "/dev/sda1"
      aws_user        = "ubuntu"
      azure_publisher = "Canonical"
      azure_offer     = "ubuntu-24_04-lts"
      azure_sku       = "server"
      gce_project     = "ubuntu-os-cloud"
      gce_family      = "ubuntu-2404-lts-amd64"
      qemu_url        = "https://cloud-images.ubuntu.com/releases/noble/release/ubuntu-24.04-server-cloudimg-amd64.img"
      qemu_digests    = "https://cloud-images.ubuntu.com/releases/noble/release/SHA256SUMS"
    }
  }
  base = local.bases[var.base]
}
