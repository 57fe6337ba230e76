-- Sessions: no gap of more than 30 minutes; what lasts longer than a day is cut at each midnight that is a day or more
-- after its start. Bots: by user agent, by more than 60 views in less than a minute, by a session of a day or more.
-- What happened at one moment is in the order of the event ids where the sender gives them; else it is in no order.

INSERT INTO expected.sessions BY NAME
WITH marked AS (
    SELECT
        *,
        row_number() OVER by_user AS number,
        coalesce(us - lag(us) OVER by_user > 30 * 60000000, true) AS starts,
        CASE event_type
            WHEN 'view' THEN lag(us, 60) OVER (PARTITION BY user_id, event_type ORDER BY us, event_id)
        END AS sixty_views_ago
    FROM events
    WINDOW by_user AS (PARTITION BY user_id ORDER BY us, event_id)
),
chained AS (
    SELECT
        *,
        max(CASE WHEN starts THEN us END) OVER (PARTITION BY user_id ORDER BY number ROWS UNBOUNDED PRECEDING) AS chain_at
    FROM marked
),
visits AS (
    SELECT
        user_id,
        CASE WHEN midnight - chain_at >= 86400000000 THEN midnight END AS piece,
        min(us) AS start_us,
        max(us) AS end_us,
        count(*) AS total_events,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'click') AS clicks,
        count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
        count(*) FILTER (event_type = 'remove_from_cart') AS remove_from_carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        count(*) FILTER (event_type = 'search') AS searches,
        count(*) FILTER (event_type = 'page_view') AS page_views,
        count(*) FILTER (event_type = 'impression') AS impressions,
        count(*) FILTER (event_type = 'add_to_wishlist') AS add_to_wishlists,
        count(*) FILTER (event_type = 'begin_checkout') AS begin_checkouts,
        count(*) FILTER (event_type = 'refund') AS refund_count,
        count(DISTINCT product_id) AS distinct_products,
        arg_min(product_id, number) AS entry_product_id,
        arg_max(product_id, number) AS exit_product_id,
        coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
        CASE
            WHEN bool_or(is_robot) THEN 'user_agent'
            -- A pause that ends a session is longer than a minute; a midnight that cuts one is not.
            WHEN bool_or(us - sixty_views_ago < 60000000
                AND (piece IS NULL OR midnight <= sixty_views_ago)) THEN 'view_rate'
            WHEN piece IS NOT NULL OR end_us - start_us >= 86400000000 THEN 'endless_session'
        END AS bot_reason,
        arg_min(campaign, number) AS campaign,
        list_sort(list(DISTINCT client_session_id) FILTER (client_session_id IS NOT NULL)) AS client_session_ids
    FROM chained
    GROUP BY user_id, chain_at, piece
)
SELECT
    * EXCLUDE (piece, start_us, end_us),
    left(sha256(user_id || '|' || start_us), 32) AS session_id,
    make_timestamptz(start_us)::DATE AS session_date,
    make_timestamptz(start_us) AS start_time,
    make_timestamptz(end_us) AS end_time,
    (end_us - start_us) // 1000000 AS duration_seconds,
    bot_reason IS NOT NULL AS is_bot,
    CASE
        WHEN purchases > 0 THEN 'purchase'
        WHEN add_to_carts > 0 THEN 'add_to_cart'
        WHEN views + clicks > 0 THEN 'view'
        ELSE 'none'
    END AS furthest_step
FROM visits;

-- Events outside of bots' sessions, which hold all events of robots.
CREATE VIEW persons AS
FROM events
WHERE NOT EXISTS (
    FROM expected.sessions AS bots
    WHERE is_bot AND bots.user_id = events.user_id AND event_time BETWEEN start_time AND end_time
);
