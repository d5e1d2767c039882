"""External provider for GARM, which asks for runners of GitHub and Gitea."""
