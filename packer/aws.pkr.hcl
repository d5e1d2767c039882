# An AMI. The builder terminates when it powers off, whoever told it to.

variable "aws_region" {
  description = "The region of builder and AMI; null: as AWS_REGION or the profile says."
  type        = string
  default     = null
}

variable "aws_profile" {
  description = "A profile of the shared AWS configuration; null: the SDK's own chain."
  type        = string
  default     = null
}

variable "aws_instance_type" {
  description = "The builder's type, x86_64."
  type        = string
  default     = "m7i.large"
}

variable "aws_subnet_id" {
  description = "The builder's subnet; null: one of the default VPC."
  type        = string
  default     = null
  validation {
    condition     = var.aws_subnet_id == null || can(regex("^subnet-[0-9a-f]+$", var.aws_subnet_id))
    error_message = "The aws_subnet_id must be a subnet's id, subnet-…."
  }
}

variable "aws_security_group_id" {
  description = "A security group that lets this machine in on port 22; null: a temporary one, open to this machine's public address alone."
  type        = string
  default     = null
  validation {
    condition     = var.aws_security_group_id == null || can(regex("^sg-[0-9a-f]+$", var.aws_security_group_id))
    error_message = "The aws_security_group_id must be a security group's id, sg-…."
  }
}

variable "aws_public_address" {
  description = "Does the builder get a public address? Without one it is reached by its private address, and aws_security_group_id is needed."
  type        = bool
  default     = true
}

variable "aws_encrypted" {
  description = "Encrypt the builder's disk, and with it the AMI's snapshot. False: as the account's default says."
  type        = bool
  default     = true
}

variable "aws_kms_key_id" {
  description = "The key for that; null: the account's default key, whose AMIs cannot be shared."
  type        = string
  default     = null
}

source "amazon-ebs" "vmrunner" {
  region        = var.aws_region
  profile       = var.aws_profile
  instance_type = var.aws_instance_type

  source_ami_filter {
    most_recent = true
    owners      = [local.base.aws_owner]
    filters = {
      name                = local.base.aws_name
      architecture        = "x86_64"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  # A builder is a VM like any other: tagged in the call that makes it, its metadata to session
  # tokens one hop far, no role of its own, gone when it powers off.
  shutdown_behavior = "terminate"
  user_data_file    = var.user_data_file
  run_tags          = var.run_tags
  run_volume_tags   = var.run_tags
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  launch_block_device_mappings {
    device_name           = local.base.aws_device
    volume_type           = "gp3"
    volume_size           = var.disk_gib
    delete_on_termination = true
    encrypted             = var.aws_encrypted ? true : null
    kms_key_id            = var.aws_encrypted ? var.aws_kms_key_id : null
  }

  subnet_id                                 = var.aws_subnet_id
  associate_public_ip_address               = var.aws_public_address
  security_group_id                         = var.aws_security_group_id
  temporary_security_group_source_public_ip = true # never 0.0.0.0/0, which is the plugin's default

  communicator                 = "ssh"
  ssh_username                 = local.base.aws_user
  ssh_interface                = var.aws_public_address ? "public_ip" : "private_ip"
  temporary_key_pair_type      = "ed25519"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = "10m"

  ami_name        = var.image_name
  ami_description = local.description
  tags            = var.image_tags
  snapshot_tags   = var.image_tags
  # By default the AMI and its snapshot are born with run_tags, the builder's deadline among them,
  # and keep what `tags` does not overwrite.
  skip_ami_run_tags = true
  imds_support      = "v2.0"
  ena_support       = true
  sriov_support     = true

  aws_polling {
    delay_seconds = 10
    max_attempts  = 180
  }
}
