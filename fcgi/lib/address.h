/* address: classifies IP addresses - public, private and so on.
 *
 * A host name may resolve to any address, and to another one tomorrow. http.c checks the address before it connects, so
 * that the API key and the queries never reach an internal service. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "lib/util.h"

struct sockaddr;

enum address_kind {
    ADDRESS_PUBLIC,
    ADDRESS_LOOPBACK,
    ADDRESS_PRIVATE,    /* RFC 1918, shared (RFC 6598), unique local (RFC 4193) */
    ADDRESS_LINK_LOCAL, /* includes the metadata services of clouds */
    ADDRESS_RESERVED    /* not a host: unspecified, multicast, documentation, unassigned */
};

enum { ADDRESS_LEN = 16 };

/* Sets of kinds, as bits. */
#define ADDRESS_BIT(kind) (1U << (kind))
enum { ADDRESS_ANY = (1 << (ADDRESS_RESERVED + 1)) - 1 };

/* The kind of an IPv4 or IPv6 address. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) is classified as IPv4.
 * Other families are reserved. */
enum address_kind address_kind(const struct sockaddr *address);

/* The address and port of a server. */
struct endpoint {
    char host[46]; /* without brackets */
    int port;
    bool loopback;
};

/* Parses "IP:PORT", IPv6 in brackets. Returns -1, and leaves *ret as it was, if the text is anything else. */
MUST_CHECK int endpoint_parse(const char *text, struct endpoint *ret);

/* Writes the text that endpoint_parse reads. */
enum { ENDPOINT_TEXT = 64 };
void endpoint_format(const struct endpoint *endpoint, char text[static ENDPOINT_TEXT]);

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);

/* The network of a client's address in text form, as 16 bytes: an IPv4 address itself (mapped), the first 64 bits of an
 * IPv6 address. False if it is not an IP address. */
bool address_network(const char *address, unsigned char out[static ADDRESS_LEN]);

/* The kind of a URL's host if it is an address (IPv6 in brackets); -1 if it is a name. */
int address_literal(const char *host, size_t len);

#endif
