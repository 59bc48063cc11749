/* throttle: counts refused credentials - tokens, links and webhook secrets - for each client address.
 *
 * After THROTTLE_REFUSALS of them within a minute, an address gets 429 in place of the refusal until the minute is
 * over. Only refusals are throttled: a valid credential from the same address is always accepted, so a client cannot
 * lock out others that share its address. The table holds a limited number of addresses and forgets the oldest; of IPv6 addresses,
 * it counts networks of 64 bits. */
#ifndef THROTTLE_H
#define THROTTLE_H

#include "lib/util.h"

enum { THROTTLE_REFUSALS = 20, THROTTLE_MAX = 4096, THROTTLE_WINDOW_MS = 60000 };

enum credential { CREDENTIAL_TOKEN, CREDENTIAL_LINK, CREDENTIAL_HOOK };

struct throttle;

struct throttle *throttle_new(void);
void throttle_free(struct throttle *throttle); /* NULL is allowed */

/* Counts and logs a refusal at loop time `now_ms`. `address` is the client's as passed by the web server; NULL, or what
 * is not an IP address, is not throttled. Returns how long the address is throttled; 0: it is not. */
int64_t throttle_refused(struct throttle *throttle, enum credential kind, const char *address,
                         int64_t now_ms);

#endif
