-- The days on whose ends customers are described, from the first with a cart event or purchase to that of the newest event.

INSERT INTO expected.customer_segment_days BY NAME
SELECT
    day::DATE AS report_date,
    least((day + INTERVAL 1 DAY)::TIMESTAMPTZ, (SELECT max(event_time) FROM events)) AS as_of,
    (SELECT count(*) FROM persons WHERE event_date = day::DATE
        AND event_type IN ('add_to_cart', 'remove_from_cart', 'purchase', 'refund')) AS events,
    '' AS fingerprint
FROM (
    SELECT unnest(generate_series(min(event_date)::TIMESTAMP, (SELECT max(event_date) FROM events)::TIMESTAMP,
        INTERVAL 1 DAY)) AS day
    FROM persons
    WHERE event_type IN ('add_to_cart', 'remove_from_cart', 'purchase', 'refund')
);
