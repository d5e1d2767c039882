output "function_uri" {
  description = "Where the guard is invoked; with {\"dry_run\": true} it only tells what would end."
  value       = google_cloudfunctions2_function.guard.service_config[0].uri
}

output "service_account" {
  description = "Who the function is."
  value       = google_service_account.guard.email
}
