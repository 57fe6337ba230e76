"""From bytes in Kafka to events: parsing, repetitions, and the table that each record belongs to."""
