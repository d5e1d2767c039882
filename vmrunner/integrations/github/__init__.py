"""Runner scale sets at GitHub: one VM a job."""
