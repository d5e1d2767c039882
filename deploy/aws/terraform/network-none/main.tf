# The closed place of builds with `network: none`: a VPC without a resolver, whose security group
# lets SSH in from where vmrunner runs, and nothing out. What it outputs goes into the provider's
# table as `subnets_none` and `security_groups_none`.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.77, < 7"
    }
  }
}

variable "ssh_from" {
  description = "Where vmrunner runs: ranges from which SSH is let in."
  type        = list(string)

  validation {
    condition     = length(var.ssh_from) > 0 && !contains(var.ssh_from, "0.0.0.0/0")
    error_message = "Name the ranges of vmrunner's own addresses: from everywhere means from other builds too."
  }
}

variable "zones" {
  description = "Availability zones, one subnet in each."
  type        = list(string)
}

variable "cidr" {
  description = "The range of the VPC."
  type        = string
  default     = "10.255.0.0/16"
}

resource "aws_vpc" "none" {
  cidr_block           = var.cidr
  enable_dns_support   = false # no security group closes the way to Amazon's resolver
  enable_dns_hostnames = false
  tags                 = { Name = "vmrunner-network-none" }
}

resource "aws_subnet" "none" {
  count = length(var.zones)

  vpc_id            = aws_vpc.none.id
  availability_zone = var.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 4, count.index)
  tags              = { Name = "vmrunner-network-none" }
}

# For the answers to SSH alone: with `address = "private"` a peering takes its place.
resource "aws_internet_gateway" "none" {
  vpc_id = aws_vpc.none.id
}

resource "aws_route_table" "none" {
  vpc_id = aws_vpc.none.id

  dynamic "route" {
    for_each = var.ssh_from

    content {
      cidr_block = route.value
      gateway_id = aws_internet_gateway.none.id
    }
  }
}

resource "aws_route_table_association" "none" {
  count = length(var.zones)

  subnet_id      = aws_subnet.none[count.index].id
  route_table_id = aws_route_table.none.id
}

resource "aws_security_group" "none" {
  name        = "vmrunner-network-none"
  description = "SSH from vmrunner; nothing out"
  vpc_id      = aws_vpc.none.id
  egress      = [] # a new group has a rule for everything

  ingress {
    protocol    = "tcp"
    from_port   = 22
    to_port     = 22
    cidr_blocks = var.ssh_from
  }
}

output "subnets_none" {
  value = aws_subnet.none[*].id
}

output "security_groups_none" {
  value = [aws_security_group.none.id]
}
