/* Kinds of addresses that an upstream's name may resolve to: the ranges of RFC 6890 and later additions. */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "lib/address.h"

static enum address_kind kind_of(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return address_kind((const struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return address_kind((const struct sockaddr *)&v6);
}

static void assert_kinds(enum address_kind kind, const char *const *addresses)
{
    for (; *addresses != NULL; addresses++) {
        if (kind_of(*addresses) != kind)
            fail_msg("%s: %d, not %d", *addresses, (int)kind_of(*addresses), (int)kind);
    }
}

#define ALL(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The neighbors of every range that is not public. */
TEST(internet_hosts_are_public)
{
    assert_kinds(ADDRESS_PUBLIC,
                 ALL("1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
                     "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255",
                     "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.88.98.255",
                     "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
                     "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255"));
    assert_kinds(ADDRESS_PUBLIC, ALL("2000::", "2000:ffff::1", "2001:200::", "2001:4860:4860::8888",
                                     "2001:db7:ffff::", "2001:db9::", "2606:4700::1111",
                                     "3ffe:ffff::", "3fff:1000::", "3fff:ffff::1"));
}

TEST(this_host_is_loopback)
{
    assert_kinds(ADDRESS_LOOPBACK, ALL("127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"));
}

TEST(private_networks_are_private)
{
    assert_kinds(ADDRESS_PRIVATE, ALL("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255",
                                      "192.168.0.0", "192.168.255.255", "100.64.0.0", "100.127.255.255",
                                      "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
}

TEST(cloud_metadata_services_are_link_local)
{
    assert_kinds(ADDRESS_LINK_LOCAL, ALL("169.254.0.0", "169.254.169.254", "169.254.255.255",
                                         "fe80::", "fe80::1", "febf:ffff::1"));
}

TEST(non_host_addresses_are_reserved)
{
    assert_kinds(ADDRESS_RESERVED, ALL("0.0.0.0", "0.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.2.0",
                                       "192.0.2.255", "192.88.99.1", "198.18.0.0", "198.19.255.255",
                                       "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255",
                                       "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"));
    assert_kinds(ADDRESS_RESERVED,
                 ALL("::", "::2", "::7f00:1", "::ffff:0:127.0.0.1", "64:ff9b:1::1", "100::1", "2001::",
                     "2001::1", "2001:1ff:ffff::", "2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff::1",
                     "4000::", "5f00::1", "fbff::", "fe00::", "fe7f::", "fec0::1", "ff02::1", "ffff::"));
}

TEST(ipv4_mapped_addresses_are_classified_as_ipv4)
{
    assert_kinds(ADDRESS_LOOPBACK, ALL("::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1"));
    assert_kinds(ADDRESS_PRIVATE, ALL("::ffff:10.1.2.3", "64:ff9b::192.168.0.1", "2002:a00::"));
    assert_kinds(ADDRESS_LINK_LOCAL, ALL("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"));
    assert_kinds(ADDRESS_RESERVED, ALL("::ffff:0.0.0.0", "64:ff9b::224.0.0.1", "2002:ffff:ffff::"));
    assert_kinds(ADDRESS_PUBLIC, ALL("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"));
}

TEST(malformed_address_is_reserved)
{
    const struct sockaddr_un local = {.sun_family = AF_UNIX};
    assert_int_equal(address_kind((const struct sockaddr *)&local), ADDRESS_RESERVED);
}

TEST(url_host_is_an_address_or_a_name)
{
    static const struct {
        const char *host;
        int kind;
    } hosts[] = {{"127.0.0.1", ADDRESS_LOOPBACK},
                 {"10.0.0.1", ADDRESS_PRIVATE},
                 {"8.8.8.8", ADDRESS_PUBLIC},
                 {"[::1]", ADDRESS_LOOPBACK},
                 {"[::ffff:127.0.0.1]", ADDRESS_LOOPBACK},
                 {"[2001:4860:4860::8888]", ADDRESS_PUBLIC},
                 {"localhost", -1},
                 {"api.example.com", -1},
                 {"127.1", -1}, /* curl accepts this form, and 0x7f000001; here they are names */
                 {"0x7f000001", -1},
                 {"2130706433", -1},
                 {"[127.0.0.1]", -1},
                 {"::1", -1},
                 {"[::1", -1},
                 {"[fe80::1%25eth0]", -1},
                 {"[]", -1},
                 {"[", -1},
                 {"", -1},
                 {"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]", -1}};
    for (size_t i = 0; i < NELEMS(hosts); i++) {
        if (address_literal(hosts[i].host, strlen(hosts[i].host)) != hosts[i].kind)
            fail_msg("%s", hosts[i].host);
    }
}

TEST(network_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address)
{
    static const struct {
        const char *address, *network; /* NULL: it is not an address */
    } cases[] = {{"192.0.2.1", "::ffff:192.0.2.1"},
                 {"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
                 {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
                 {"::1", "::"},
                 {"unix:", NULL},
                 {"192.0.2.1 ", NULL},
                 {"[::1]", NULL},
                 {"", NULL}};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        unsigned char network[ADDRESS_LEN], expected[ADDRESS_LEN];
        assert_int_equal(address_network(cases[i].address, network), cases[i].network != NULL);
        if (cases[i].network == NULL)
            continue;
        assert_int_equal(inet_pton(AF_INET6, cases[i].network, expected), 1);
        assert_memory_equal(network, expected, ADDRESS_LEN);
    }
}

TEST(endpoint_has_the_text_that_it_was_parsed_from)
{
    static const char *const texts[] = {"127.0.0.1:6379", "[2001:db8::1]:1", "192.0.2.1:65535"};
    struct endpoint last = {0};
    for (size_t i = 0; i < NELEMS(texts); i++) {
        struct endpoint endpoint, same;
        char text[ENDPOINT_TEXT];
        assert_int_equal(endpoint_parse(texts[i], &endpoint), 0);
        endpoint_format(&endpoint, text);
        assert_string_equal(text, texts[i]);
        assert_int_equal(endpoint_parse(text, &same), 0);
        assert_true(endpoint_equal(&endpoint, &same));
        assert_false(endpoint_equal(&endpoint, &last));
        same.port++;
        assert_false(endpoint_equal(&endpoint, &same));
        last = endpoint;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(internet_hosts_are_public),
        cmocka_unit_test(this_host_is_loopback),
        cmocka_unit_test(private_networks_are_private),
        cmocka_unit_test(cloud_metadata_services_are_link_local),
        cmocka_unit_test(non_host_addresses_are_reserved),
        cmocka_unit_test(ipv4_mapped_addresses_are_classified_as_ipv4),
        cmocka_unit_test(malformed_address_is_reserved),
        cmocka_unit_test(url_host_is_an_address_or_a_name),
        cmocka_unit_test(network_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address),
        cmocka_unit_test(endpoint_has_the_text_that_it_was_parsed_from),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
