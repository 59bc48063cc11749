/* redis_slots: the hash slots of a Redis Cluster - the slot of a key, which node has which slots, and redirections. No I/O.
 *
 * All input comes from the network: the parsers accept only what the grammar and the limits allow. */
#ifndef REDIS_SLOTS_H
#define REDIS_SLOTS_H

#include "lib/address.h"

enum { REDIS_SLOTS = 16384, REDIS_NODES_MAX = 1000, REDIS_SLOT_UNASSIGNED = 0xffff };

/* CRC16 of the key, or of its hash tag: the text between its first "{" and the next "}", if there is any. */
int redis_slot(const char *key);

enum redis_redirect_kind {
    REDIS_NOT_REDIRECTED, /* another error */
    REDIS_MOVED,          /* another node has the slot, from now on */
    REDIS_ASK,            /* another node has the key, because the slot is being moved there */
    REDIS_CLUSTER_DOWN
};

struct redis_redirect {
    enum redis_redirect_kind kind;
    int slot;
    struct endpoint server; /* MOVED, ASK */
};

/* Parses an error reply of the node `from`. A redirection without a host leads to the host of `from`. Returns -1, and leaves
 * *ret as it was, if a redirection is malformed or names a host that is not an IP address. */
MUST_CHECK int redis_redirect_parse(const char *error, const struct endpoint *from,
                                    struct redis_redirect *ret);

/* The masters that have slots. */
struct redis_slots {
    size_t n;
    struct endpoint nodes[REDIS_NODES_MAX];
    uint16_t owners[REDIS_SLOTS]; /* indexes of nodes, or REDIS_SLOT_UNASSIGNED */
};

/* Parses the reply of the node `from` to CLUSTER NODES. Returns -1 if the reply is malformed; then *out must not be used. */
MUST_CHECK int redis_slots_parse(const char *text, size_t len, const struct endpoint *from,
                                 struct redis_slots *out);

#endif
