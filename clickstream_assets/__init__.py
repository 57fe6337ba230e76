"""From click events in Kafka to sessions, segments and recommendations: a Dagster asset pipeline."""
