"""Who is tested: pointsman over gRPC, or any gateway that speaks OpenAI's chat dialect over HTTP."""
