-- The reports of the days(report_date) as JSON, but for when they were made.

CREATE MACRO change(now, before) AS
    CASE WHEN now IS NOT NULL AND before IS NOT NULL THEN {
        'before': before,
        'change': now - before,
        'change_percent': CASE
            WHEN before = 0 THEN CASE WHEN now = 0 THEN 0 END
            WHEN now >= before THEN half_even(((now - before) * 10000)::HUGEINT * 10000, (abs(before) * 10000)::HUGEINT) / 100
            ELSE -half_even(((before - now) * 10000)::HUGEINT * 10000, (abs(before) * 10000)::HUGEINT) / 100
        END
    } END;

CREATE TABLE figures AS
SELECT
    report_date,
    -- Before the first event of all there is nothing to compare with; later days without events had none.
    report_date >= (SELECT min(event_date) FROM events) AS is_known,
    average_order_value,
    coalesce(currencies, []) AS currencies,
    currency,
    coalesce(columns(* EXCLUDE (report_date, average_order_value, currencies, currency)), 0)
FROM days LEFT JOIN expected.daily_summary AS summary USING (report_date);

CREATE MACRO compared(now, before, day) AS {
    'date': day::VARCHAR,
    'total_events': change(now.total_events, before.total_events),
    'users': change(now.users, before.users),
    'buyers': change(now.buyer_count, before.buyer_count),
    'sessions': change(now.sessions, before.sessions),
    'orders': change(now.orders, before.orders),
    'revenue': change(now.revenue, before.revenue),
    'refunds': change(now.refunds, before.refunds),
    'net_revenue': change(now.net_revenue, before.net_revenue),
    'average_order_value': change(now.average_order_value, before.average_order_value),
    'bounce_rate': change(now.bounce_rate, before.bounce_rate),
    'conversion_rate': change(now.conversion_rate, before.conversion_rate)
};

CREATE TABLE reports AS
SELECT
    now.report_date,
    json_object(
        'date', now.report_date::VARCHAR,
        'total_events', now.total_events,
        'window_shoppers', json_object(
            'count', now.window_shopper_count,
            'user_ids', coalesce((SELECT list(user_id ORDER BY user_id)[1:10] FROM expected.user_segments
                WHERE report_date = now.report_date AND segment = 'window_shopper'), [])
        ),
        'buyers', json_object(
            'count', now.buyer_count,
            'user_ids', coalesce((SELECT list(user_id ORDER BY user_id)[1:10] FROM expected.user_segments
                WHERE report_date = now.report_date AND segment = 'buyer'), [])
        ),
        'top_5_viewed_products', coalesce(
            (SELECT list({'product_id': product_id, 'views': view_count} ORDER BY rank)
                FROM expected.product_performance
                WHERE report_date = now.report_date AND rank <= 5 AND view_count > 0), []),
        'conversion_rates_by_category', coalesce(
            (SELECT json_group_object(category,
                    {'views': views, 'purchases': purchases, 'conversion_rate': conversion_rate})
                FROM expected.category_conversion
                WHERE report_date = now.report_date AND (views > 0 OR purchases > 0)), '{}'::JSON),
        'users', now.users,
        'sessions', now.sessions,
        'orders', now.orders,
        'revenue', now.revenue,
        'refunds', now.refunds,
        'net_revenue', now.net_revenue,
        'average_order_value', now.average_order_value,
        'bounce_rate', now.bounce_rate,
        'conversion_rate', now.conversion_rate,
        'views', now.views,
        'add_to_carts', now.add_to_carts,
        'purchases', now.purchases,
        'buyer_rate', now.buyer_rate,
        'currency', now.currency,
        'currencies', now.currencies,
        'unconverted', now.unconverted,
        'complete', true,
        'bots', json_object('events', now.bot_events, 'sessions', now.bot_sessions),
        'funnel', coalesce(
            (SELECT list({
                    'step': step,
                    'users': users,
                    'conversion_from_previous': conversion_from_previous,
                    'conversion_from_first': conversion_from_first
                } ORDER BY step_number)
                FROM expected.funnel WHERE report_date = now.report_date AND dimension = 'overall'), []),
        'carts', (SELECT {'opened': opened, 'abandoned': abandoned, 'purchased': purchased}
            FROM expected.cart_days WHERE report_date = now.report_date),
        'customer_segments', (SELECT CASE WHEN count(*) > 0 THEN json_group_object(rfm_segment, customers) END
            FROM (SELECT rfm_segment, count(*) AS customers FROM expected.customer_segments
                WHERE report_date = now.report_date AND rfm_segment IS NOT NULL GROUP BY rfm_segment)),
        'campaigns', (SELECT list({'campaign': campaign, 'orders': orders, 'revenue': revenue}
                    ORDER BY revenue DESC, campaign)
            FROM expected.campaign_attribution WHERE report_date = now.report_date AND model = 'last_touch'),
        'comparison', {
            'day_before': compared(now, day_before, now.report_date - 1),
            'week_before': compared(now, week_before, now.report_date - 7)
        }
    ) AS report
FROM figures AS now
LEFT JOIN figures AS day_before ON day_before.report_date = now.report_date - 1 AND day_before.is_known
LEFT JOIN figures AS week_before ON week_before.report_date = now.report_date - 7 AND week_before.is_known;

INSERT INTO expected.daily_report BY NAME
SELECT report_date, now() AS generated_at, report FROM reports;
