# A local disk, from the vendor's cloud image. All that listens does so on loopback.

variable "qemu_accelerator" {
  description = "kvm, or tcg where there is none (then a build takes the better part of an hour)."
  type        = string
  default     = "kvm"
  validation {
    condition     = contains(["kvm", "tcg"], var.qemu_accelerator)
    error_message = "The qemu_accelerator must be kvm or tcg."
  }
}

variable "qemu_output_dir" {
  description = "The directory that the disk is made in; it must not exist."
  type        = string
  default     = "output-qemu"
}

variable "qemu_base_url" {
  description = "Instead of the vendor's image, one of your own: a path, or a URL. Needs its checksum."
  type        = string
  default     = null
}

variable "qemu_base_checksum" {
  description = "Of that image, such as sha256:… or none."
  type        = string
  default     = null
}

locals {
  qemu_url      = var.qemu_base_url == null ? local.base.qemu_url : var.qemu_base_url
  qemu_checksum = var.qemu_base_url == null ? "file:${local.base.qemu_digests}" : var.qemu_base_checksum
}

# What Packer logs in with. The seed that a neighbour on this machine could read has its hash alone.
local "qemu_password" {
  expression = uuidv4()
  sensitive  = true
}

source "qemu" "vmrunner" {
  iso_url      = local.qemu_url
  iso_checksum = local.qemu_checksum
  disk_image   = true
  format       = "qcow2"
  vm_name      = "disk.qcow2"

  output_directory   = var.qemu_output_dir
  disk_size          = "${var.disk_gib}G"
  disk_interface     = "virtio"
  disk_discard       = "unmap"
  disk_detect_zeroes = "unmap"

  accelerator = var.qemu_accelerator
  cpu_model   = var.qemu_accelerator == "kvm" ? "host" : "max"
  cpus        = 2
  memory      = 2048
  net_device  = "virtio-net"

  headless    = true
  disable_vnc = true
  qemuargs = [
    ["-display", "none"],
    ["-vnc", "none"],
    # The plugin's own forward is open on every address of this machine.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
    ["-smbios", "type=1,serial=ds=nocloud;s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/"],
  ]

  # A NoCloud seed over HTTP, which needs no ISO tool here and no CD driver there.
  http_bind_address = "127.0.0.1"
  http_content = {
    "/meta-data"   = jsonencode({ instance-id = "vmrunner-builder" })
    "/vendor-data" = var.user_data_file == null ? "" : file(var.user_data_file)
    "/user-data" = join("\n", ["#cloud-config", jsonencode({
      disable_root = false
      ssh_pwauth   = true
      chpasswd = {
        expire = false
        users  = [{ name = "root", type = "hash", password = bcrypt(local.qemu_password) }]
      }
      write_files = [{
        path    = "/etc/ssh/sshd_config.d/00-vmrunner-builder.conf"
        content = "PermitRootLogin yes\nPasswordAuthentication yes\n"
      }]
    })])
  }

  communicator                 = "ssh"
  ssh_username                 = "root"
  ssh_password                 = local.qemu_password
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = "20m"
  ssh_handshake_attempts       = 100

  shutdown_command = "systemctl poweroff"
  shutdown_timeout = "5m"
}
