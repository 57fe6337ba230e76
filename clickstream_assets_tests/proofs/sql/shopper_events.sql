-- Shoppers' events: persons' as they were sent. Of the benchmark alone, whose events all have a user id.

CREATE TABLE expected.shopper_events AS
SELECT
    event_id,
    event_type,
    event_name,
    event_time,
    event_date,
    user_id,
    product_id,
    product_category,
    price,
    currency,
    quantity,
    order_id,
    query,
    campaign,
    consent,
    price AS sent_price,
    currency AS sent_currency
FROM persons;
