"""From bytes in Kafka to events: parsing, repetitions, and where each record is placed."""
