/* address: what an IP address is good for - the open Internet, or a network of somebody's own.
 *
 * A name may lead anywhere, and to another place tomorrow. What it leads to is looked at before a connection
 * is made (http.c), so that the upstream's key, and our questions, do not end at a service inside. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "lib/util.h"

struct sockaddr;

enum address_kind {
    ADDRESS_PUBLIC,
    ADDRESS_LOOPBACK,
    ADDRESS_PRIVATE,    /* RFC 1918, shared (RFC 6598), unique local (RFC 4193) */
    ADDRESS_LINK_LOCAL, /* where clouds have their metadata services */
    ADDRESS_RESERVED    /* no host: unspecified, multicast, documentation, and whatever is not assigned */
};

/* Sets of kinds, as bits. */
#define ADDRESS_BIT(kind) (1U << (kind))
enum { ADDRESS_ANY = (1 << (ADDRESS_RESERVED + 1)) - 1 };

/* Of an IPv4 or IPv6 address; an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as itself.
 * What is neither is reserved. */
enum address_kind address_kind(const struct sockaddr *address);

/* Of a URL's host that is an address, IPv6 in brackets; -1: it is a name. */
int address_literal(const char *host, size_t len);

#endif
