# The guard, as `vmrunner guard install` makes it: the same names, the same policies, the same code.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.77, < 7" # before it python3.13 is no runtime
    }
    archive = {
      source  = "hashicorp/archive"
      version = ">= 2.4, < 3"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Its `name` warns as deprecated from provider 6 on. `region` is not there before 6.
data "aws_region" "current" {}

locals {
  name   = "vmrunner-guard-${var.installation}"
  group  = "vmrunner-${var.installation}"
  ending = "vmrunner-deadline-${var.installation}"
  whose  = var.all_installations ? "*" : var.installation
  source = "${path.module}/../guard.py"

  tags = merge(var.tags, {
    "vmrunner:installation" = var.installation
    "vmrunner:role"         = "guard"
  })

  # What the policies under ../policies leave open.
  values = {
    account        = data.aws_caller_identity.current.account_id
    installation   = local.whose
    name           = local.name
    partition      = data.aws_partition.current.partition
    region         = data.aws_region.current.name
    scheduler_role = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:role/${local.ending}"
  }
}

# --- what the function needs before it is there ---

resource "aws_sqs_queue" "dead_letters" {
  name                      = local.name
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = local.tags
}

resource "aws_cloudwatch_log_group" "guard" {
  name              = "/aws/lambda/${local.name}"
  retention_in_days = 30
  tags              = local.tags
}

resource "aws_iam_role" "guard" {
  name               = local.name
  assume_role_policy = templatefile("${path.module}/../policies/guard-trust.json", local.values)
  tags               = local.tags
}

resource "aws_iam_role_policy" "guard" {
  name   = "guard"
  role   = aws_iam_role.guard.id
  policy = templatefile("${path.module}/../policies/guard.json", local.values)
}

resource "aws_iam_role" "schedule" {
  name               = "${local.name}-schedule"
  assume_role_policy = templatefile("${path.module}/../policies/schedule-trust.json", local.values)
  tags               = local.tags
}

resource "aws_iam_role_policy" "schedule" {
  name   = "schedule"
  role   = aws_iam_role.schedule.id
  policy = templatefile("${path.module}/../policies/schedule.json", local.values)
}

# What the one-shot deadlines of VMs may do: `scheduler_role` in vmrunner's configuration.
resource "aws_iam_role" "deadline" {
  name               = local.ending
  assume_role_policy = templatefile("${path.module}/../policies/schedule-trust.json", local.values)
  tags               = local.tags
}

resource "aws_iam_role_policy" "deadline" {
  name   = "deadline"
  role   = aws_iam_role.deadline.id
  policy = templatefile("${path.module}/../policies/deadline.json", local.values)
}

# --- the function ---

data "archive_file" "guard" {
  type        = "zip"
  source_file = local.source
  output_path = "${path.root}/.terraform/vmrunner-guard.zip"
}

resource "aws_lambda_function" "guard" {
  function_name    = local.name
  description      = "vmrunner's guard (Terraform), source sha256 ${filesha256(local.source)}"
  role             = aws_iam_role.guard.arn
  filename         = data.archive_file.guard.output_path
  source_code_hash = data.archive_file.guard.output_base64sha256
  handler          = "guard.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 240
  tags             = local.tags

  environment {
    variables = {
      VMRUNNER_INSTALLATION = local.whose
      VMRUNNER_REGIONS      = join(",", var.regions)
      VMRUNNER_GRACE        = tostring(var.grace_seconds)
      VMRUNNER_MAX_TTL      = tostring(var.max_ttl_seconds)
      VMRUNNER_ROLES        = "build,pool,image"
    }
  }

  # The function itself leaves the time of its last pass there.
  lifecycle {
    ignore_changes = [tags["vmrunner:last-pass"], tags_all["vmrunner:last-pass"]]
  }

  depends_on = [aws_cloudwatch_log_group.guard, aws_iam_role_policy.guard]
}

resource "aws_lambda_function_event_invoke_config" "guard" {
  function_name                = aws_lambda_function.guard.function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 300

  destination_config {
    on_failure {
      destination = aws_sqs_queue.dead_letters.arn
    }
  }
}

# --- what invokes it ---

resource "aws_scheduler_schedule_group" "installation" {
  name = local.group
  tags = local.tags
}

resource "aws_scheduler_schedule" "guard" {
  name                = "guard"
  group_name          = aws_scheduler_schedule_group.installation.name
  schedule_expression = "rate(5 minutes)"
  state               = "ENABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.guard.arn
    role_arn = aws_iam_role.schedule.arn
    input    = "{}"

    dead_letter_config {
      arn = aws_sqs_queue.dead_letters.arn
    }

    retry_policy {
      maximum_event_age_in_seconds = 300
      maximum_retry_attempts       = 2
    }
  }

  depends_on = [aws_iam_role_policy.schedule]
}

# --- what rings ---

resource "aws_cloudwatch_metric_alarm" "silent" {
  alarm_name          = "${local.name}-silent"
  alarm_description   = "The guard that ends vmrunner's overdue VMs has not succeeded for 20 minutes: vmrunner guard status."
  alarm_actions       = var.alarm_actions
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 4
  datapoints_to_alarm = 4
  treat_missing_data  = "breaching"
  tags                = local.tags

  metric_query {
    id          = "errors"
    return_data = false

    metric {
      namespace   = "AWS/Lambda"
      metric_name = "Errors"
      period      = 300
      stat        = "Sum"
      dimensions  = { FunctionName = local.name }
    }
  }

  metric_query {
    id          = "invocations"
    return_data = false

    metric {
      namespace   = "AWS/Lambda"
      metric_name = "Invocations"
      period      = 300
      stat        = "Sum"
      dimensions  = { FunctionName = local.name }
    }
  }

  metric_query {
    id          = "succeeded"
    expression  = "invocations - errors"
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "failing" {
  alarm_name          = "${local.name}-failing"
  alarm_description   = "The guard that ends vmrunner's overdue VMs cannot read or end something; its log says what."
  alarm_actions       = var.alarm_actions
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  statistic           = "Sum"
  period              = 300
  dimensions          = { FunctionName = local.name }
  tags                = local.tags
}
