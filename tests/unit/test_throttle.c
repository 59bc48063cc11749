/* Refused credentials: how many an address may send, and what the table forgets. */
#include "unit.h"

#include <stdio.h>

#include "access/throttle.h"

static struct throttle *throttle;

static int start(void **unused __attribute__((unused)))
{
    throttle = throttle_new();
    return 0;
}

static int finish(void **unused __attribute__((unused)))
{
    throttle_free(throttle);
    return 0;
}

static int64_t refused(const char *address, int64_t now_ms)
{
    return throttle_refused(throttle, CREDENTIAL_TOKEN, address, now_ms);
}

static void exhaust(const char *address, int64_t now_ms)
{
    for (int i = 0; i < THROTTLE_REFUSALS; i++)
        assert_int_equal(refused(address, now_ms), 0);
}

TEST(address_is_throttled_until_its_window_ends)
{
    exhaust("192.0.2.1", 1000);
    assert_int_equal(refused("192.0.2.1", 1000), THROTTLE_WINDOW_MS);
    assert_int_equal(refused("192.0.2.1", 1000 + THROTTLE_WINDOW_MS - 1), 1);
    exhaust("192.0.2.1", 1000 + THROTTLE_WINDOW_MS);
    assert_int_not_equal(refused("192.0.2.1", 1000 + THROTTLE_WINDOW_MS), 0);
}

TEST(kinds_of_credentials_count_together)
{
    for (int i = 0; i < THROTTLE_REFUSALS; i++)
        assert_int_equal(throttle_refused(throttle, (enum credential)(i % 3), "192.0.2.1", 0), 0);
    assert_int_not_equal(refused("192.0.2.1", 0), 0);
}

TEST(other_addresses_are_not_throttled)
{
    exhaust("192.0.2.1", 0);
    exhaust("2001:db8:1:2::1", 0);
    assert_int_equal(refused("192.0.2.2", 0), 0);
    assert_int_equal(refused("2001:db8:1:3::1", 0), 0);
}

TEST(ipv6_addresses_of_one_network_count_together)
{
    exhaust("2001:db8:1:2::1", 0);
    assert_int_not_equal(refused("2001:db8:1:2:ffff::", 0), 0);
    exhaust("::ffff:192.0.2.1", 0);
    assert_int_equal(refused("::ffff:192.0.2.2", 0), 0);
    assert_int_not_equal(refused("192.0.2.1", 0), 0);
}

TEST(unknown_address_is_not_throttled)
{
    static const char *const unknown[] = {NULL, "", "unix:", "192.0.2", "192.0.2.1:80", "[::1]", "localhost"};
    for (size_t i = 0; i < 10 * NELEMS(unknown) * THROTTLE_REFUSALS; i++)
        assert_int_equal(refused(unknown[i % NELEMS(unknown)], 0), 0);
}

TEST(full_table_forgets_the_oldest_address)
{
    char address[32];
    exhaust("192.0.2.1", 0);
    for (int i = 0; i < THROTTLE_MAX - 1; i++) {
        snprintf(address, sizeof(address), "10.0.%d.%d", i / 256, i % 256);
        assert_int_equal(refused(address, 0), 0);
    }
    assert_int_not_equal(refused("192.0.2.1", 0), 0);
    assert_int_equal(refused("10.1.0.0", 0), 0);
    assert_int_equal(refused("192.0.2.1", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(address_is_throttled_until_its_window_ends, start, finish),
        cmocka_unit_test_setup_teardown(kinds_of_credentials_count_together, start, finish),
        cmocka_unit_test_setup_teardown(other_addresses_are_not_throttled, start, finish),
        cmocka_unit_test_setup_teardown(ipv6_addresses_of_one_network_count_together, start, finish),
        cmocka_unit_test_setup_teardown(unknown_address_is_not_throttled, start, finish),
        cmocka_unit_test_setup_teardown(full_table_forgets_the_oldest_address, start, finish),
    };
    return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}
