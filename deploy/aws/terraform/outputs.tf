output "function_arn" {
  description = "The guard's function; invoke it with {\"dry_run\": true} to see what it would end."
  value       = aws_lambda_function.guard.arn
}

output "role_arn" {
  description = "The role that the function has."
  value       = aws_iam_role.guard.arn
}

output "scheduler_role" {
  description = "For `scheduler_role` in vmrunner's configuration: it ends VMs past their deadline."
  value       = aws_iam_role.deadline.arn
}

output "schedule_group" {
  description = "The installation's group of schedules."
  value       = aws_scheduler_schedule_group.installation.name
}

output "dead_letters_arn" {
  description = "The queue of invocations that came to nothing."
  value       = aws_sqs_queue.dead_letters.arn
}

output "alarm_arns" {
  description = "The alarms, by name."
  value = {
    silent  = aws_cloudwatch_metric_alarm.silent.arn
    failing = aws_cloudwatch_metric_alarm.failing.arn
  }
}
