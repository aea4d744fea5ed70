"""What a fleet costs: machines and money, against an endpoint a tenant and SageMaker's multi-model endpoints."""
