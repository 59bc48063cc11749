/* address: see address.h. Every address is handled as 16 bytes, IPv4 as ::ffff:a.b.c.d. */
#include "lib/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* The addresses that share the first `bits` with `base`. */
struct range {
    const char *base;
    unsigned bits;
    enum address_kind kind;
};

#define V4(base, bits, kind)                                                                                 \
    {                                                                                                        \
        "::ffff:" base, 96 + (bits), kind                                                                    \
    }

/* RFC 6890 and its registries; the first match applies. */
static const struct range ranges[] = {
    V4("0.0.0.0", 8, ADDRESS_RESERVED), /* this network */
    V4("10.0.0.0", 8, ADDRESS_PRIVATE),
    V4("100.64.0.0", 10, ADDRESS_PRIVATE), /* shared by the customers of a carrier */
    V4("127.0.0.0", 8, ADDRESS_LOOPBACK),
    V4("169.254.0.0", 16, ADDRESS_LINK_LOCAL),
    V4("172.16.0.0", 12, ADDRESS_PRIVATE),
    V4("192.0.0.0", 24, ADDRESS_RESERVED),   /* protocols of the IETF */
    V4("192.0.2.0", 24, ADDRESS_RESERVED),   /* documentation */
    V4("192.88.99.0", 24, ADDRESS_RESERVED), /* relays of 6to4 */
    V4("192.168.0.0", 16, ADDRESS_PRIVATE),
    V4("198.18.0.0", 15, ADDRESS_RESERVED),   /* benchmarks */
    V4("198.51.100.0", 24, ADDRESS_RESERVED), /* documentation */
    V4("203.0.113.0", 24, ADDRESS_RESERVED),  /* documentation */
    V4("224.0.0.0", 3, ADDRESS_RESERVED),     /* multicast, and all above it */
    V4("0.0.0.0", 0, ADDRESS_PUBLIC),
    {"::1", 128, ADDRESS_LOOPBACK},
    {"2001::", 23, ADDRESS_RESERVED},     /* protocols of the IETF, Teredo among them */
    {"2001:db8::", 32, ADDRESS_RESERVED}, /* documentation */
    {"3fff::", 20, ADDRESS_RESERVED},     /* documentation */
    {"2000::", 3, ADDRESS_PUBLIC},
    {"fc00::", 7, ADDRESS_PRIVATE},
    {"fe80::", 10, ADDRESS_LINK_LOCAL},
    {"::", 0, ADDRESS_RESERVED},
};

/* Ranges whose addresses embed an IPv4 address, and its offset. */
static const struct {
    const char *base;
    unsigned bits;
    size_t at;
} embedded[] = {{"64:ff9b::", 96, 12} /* NAT64 */, {"2002::", 16, 2} /* 6to4 */};

static bool is_in(const struct in6_addr *address, const char *base_text, unsigned bits)
{
    struct in6_addr base;
    size_t bytes = bits / 8;
    if (inet_pton(AF_INET6, base_text, &base) != 1)
        return false;
    unsigned rest = 0xff00U >> (bits % 8) & 0xff;
    return memcmp(address->s6_addr, base.s6_addr, bytes) == 0 &&
           (rest == 0 || ((address->s6_addr[bytes] ^ base.s6_addr[bytes]) & rest) == 0);
}

static struct in6_addr mapped(const void *v4)
{
    struct in6_addr address = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(address.s6_addr + 12, v4, 4);
    return address;
}

static enum address_kind kind_of(struct in6_addr address)
{
    for (size_t i = 0; i < NELEMS(embedded); i++) {
        if (is_in(&address, embedded[i].base, embedded[i].bits)) {
            address = mapped(address.s6_addr + embedded[i].at);
            break;
        }
    }
    size_t i = 0;
    while (!is_in(&address, ranges[i].base, ranges[i].bits))
        i++; /* the last one matches everything */
    return ranges[i].kind;
}

enum address_kind address_kind(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return kind_of(mapped(&((const struct sockaddr_in *)(const void *)address)->sin_addr));
    if (address->sa_family == AF_INET6)
        return kind_of(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return ADDRESS_RESERVED;
}

bool address_network(const char *address, unsigned char out[static ADDRESS_LEN])
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, address, &v4) == 1)
        v6 = mapped(&v4);
    else if (inet_pton(AF_INET6, address, &v6) != 1)
        return false;
    if (!IN6_IS_ADDR_V4MAPPED(&v6))
        memset(v6.s6_addr + ADDRESS_LEN / 2, 0, ADDRESS_LEN / 2);
    memcpy(out, v6.s6_addr, ADDRESS_LEN);
    return true;
}

int address_literal(const char *host, size_t len)
{
    char text[INET6_ADDRSTRLEN + 1] = "";
    struct in_addr v4;
    struct in6_addr v6;
    bool bracket = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    if (len - 2 * bracket >= sizeof(text))
        return -1;
    memcpy(text, host + bracket, len - 2 * bracket);
    if (!bracket && inet_pton(AF_INET, text, &v4) == 1)
        return (int)kind_of(mapped(&v4));
    if (bracket && inet_pton(AF_INET6, text, &v6) == 1)
        return (int)kind_of(v6);
    return -1;
}

int endpoint_parse(const char *text, struct endpoint *ret)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon != NULL ? (size_t)(colon - text) : 0;
    int kind = address_literal(text, len);
    int64_t port;
    if (kind < 0 || parse_int(colon + 1, &port) < 0 || port < 1 || port > 65535)
        return -1;
    bool bracket = text[0] == '[';
    *ret = (struct endpoint){.port = (int)port, .loopback = kind == ADDRESS_LOOPBACK};
    memcpy(ret->host, text + bracket, len - 2 * bracket);
    return 0;
}

void endpoint_format(const struct endpoint *endpoint, char text[static ENDPOINT_TEXT])
{
    const char *form = strchr(endpoint->host, ':') ? "[%s]:%d" : "%s:%d";
    snprintf(text, ENDPOINT_TEXT, form, endpoint->host, endpoint->port);
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}
