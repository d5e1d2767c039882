# One build for every cloud: the base is made bare, the scripts that vmrunner's own builder runs are
# run, and run again; then the container images, the supervisor, and nothing of the builder's.

locals {
  work        = "/opt/vmrunner-build" # there, not in /tmp, which 90-clean.sh empties
  stage       = "/opt/vmrunner-build/stage"
  as_root     = "sudo -n env {{ .Vars }} sh {{ .Path }}"
  description = "vmrunner ${var.recipe_hash} on ${var.base}, made at ${var.created}"

  platforms = {
    amazon-ebs    = "ec2"
    azure-arm     = "azure"
    googlecompute = "gce"
    qemu          = "local"
  }

  # Those of vmrunner's own builder, in its order.
  scripts = [
    "05-initramfs.sh",
    "08-network.sh",
    "10-system.sh",
    "20-ssh.sh",
    "30-cloud-init.sh",
    "40-docker.sh",
    "42-userns.sh",
    "45-gvisor.sh",
    "50-trim.sh",
    "60-resident.sh",
    "80-sbom.sh",
    "90-clean.sh",
  ]
}

build {
  sources = [
    "source.amazon-ebs.vmrunner",
    "source.azure-arm.vmrunner",
    "source.googlecompute.vmrunner",
    "source.qemu.vmrunner",
  ]

  provisioner "shell" {
    inline = ["sudo -n install -d -m 0700 -o \"$(id -un)\" ${local.work} ${local.stage}"]
  }

  provisioner "file" {
    source      = "${path.root}/../cloud-init/deadline.sh"
    destination = "${local.work}/deadline.sh"
  }

  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    env = {
      VMRUNNER_PLATFORM        = local.platforms[source.type]
      VMRUNNER_MAX_RUN_SECONDS = var.max_run_seconds
      VMRUNNER_WORK            = local.work
    }
    script = "${path.root}/provision/10-deadline.sh"
  }

  provisioner "file" {
    source      = "${var.stage_dir}/"
    destination = local.stage
  }

  provisioner "file" {
    source      = "${path.root}/provision/containers.py"
    destination = "${local.work}/containers.py"
  }

  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    env = {
      VMRUNNER_PLATFORM = local.platforms[source.type]
      VMRUNNER_STAGE    = local.stage
    }
    scripts = [
      "${path.root}/provision/20-base.sh",
      "${path.root}/scripts/08-network.sh",
      "${path.root}/provision/30-packages.sh",
    ]
  }

  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    env = {
      VMRUNNER_PLATFORM        = local.platforms[source.type]
      VMRUNNER_REGISTRY_MIRROR = var.registry_mirror
      VMRUNNER_ADDRESS_POOL    = var.address_pool
      VMRUNNER_USERNS          = var.userns ? "yes" : "no"
      VMRUNNER_WORK            = local.work
    }
    scripts = concat(
      [for name in local.scripts : "${path.root}/scripts/${name}"],
      ["${path.root}/provision/40-unchanged.sh"],
    )
  }

  # Again: 40-unchanged.sh fails when anything in /etc is other than after the first time.
  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    env = {
      VMRUNNER_PLATFORM        = local.platforms[source.type]
      VMRUNNER_REGISTRY_MIRROR = var.registry_mirror
      VMRUNNER_ADDRESS_POOL    = var.address_pool
      VMRUNNER_USERNS          = var.userns ? "yes" : "no"
      VMRUNNER_WORK            = local.work
    }
    scripts = concat(
      [for name in local.scripts : "${path.root}/scripts/${name}"],
      ["${path.root}/provision/40-unchanged.sh"],
    )
  }

  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    env = {
      VMRUNNER_PLATFORM    = local.platforms[source.type]
      VMRUNNER_STAGE       = local.stage
      VMRUNNER_WORK        = local.work
      VMRUNNER_RECIPE_HASH = var.recipe_hash
    }
    scripts = [
      "${path.root}/provision/50-containers.sh",
      "${path.root}/provision/60-supervisor.sh",
      "${path.root}/provision/65-buttons.sh",
    ]
  }

  # The last words over SSH: with them the user goes who says them.
  provisioner "shell" {
    remote_folder   = local.work
    execute_command = local.as_root
    skip_clean      = true
    env = {
      VMRUNNER_PLATFORM = local.platforms[source.type]
      VMRUNNER_WORK     = local.work
    }
    scripts = [
      "${path.root}/provision/80-finish.sh",
      "${path.root}/scripts/80-sbom.sh",
      "${path.root}/scripts/90-clean.sh",
      "${path.root}/provision/99-leave.sh",
    ]
  }
}
