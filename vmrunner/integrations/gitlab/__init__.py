"""Custom executor for GitLab Runner: one VM a job."""
