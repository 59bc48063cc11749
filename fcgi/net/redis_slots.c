/* redis_slots: see redis_slots.h.
 *
 * The reply to CLUSTER NODES is a text, a line for each node:
 *
 *     ID HOST:PORT@PORT[,HOSTNAME...] FLAGS MASTER PING PONG EPOCH LINK [SLOT | FIRST-LAST | "[" MIGRATION "]"]...
 *
 * Unlike the reply to CLUSTER SLOTS, this text has IP addresses even if the cluster announces host names. */
#include "net/redis_slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 8, ADDRESS_TEXT_MAX = 64 };
enum { ID, ADDRESS, FLAGS };

/* CRC-16/XMODEM, four bits at a time. */
static unsigned crc16(const char *data, size_t len)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                       0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    unsigned crc = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)data[i];
        crc = ((crc << 4) ^ table[(crc >> 12) ^ (byte >> 4)]) & 0xffff;
        crc = ((crc << 4) ^ table[(crc >> 12) ^ (byte & 15)]) & 0xffff;
    }
    return crc;
}

int redis_slot(const char *key)
{
    const char *open = strchr(key, '{'), *close = open ? strchr(open, '}') : NULL;
    bool tagged = close != NULL && close > open + 1;
    return (int)(tagged ? crc16(open + 1, (size_t)(close - open - 1)) : crc16(key, strlen(key))) %
           REDIS_SLOTS;
}

/* ---- parts of the texts, which the parsers cut into words ---- */

/* Returns -1 if the text is not a slot. */
static int read_slot(const char *text)
{
    int64_t slot;
    return strlen(text) <= 5 && parse_int(text, &slot) == 0 && slot < REDIS_SLOTS ? (int)slot : -1;
}

/* "HOST:PORT", where an IPv6 address has no brackets. */
static int read_address(char *text, const struct endpoint *from, struct endpoint *ret)
{
    char whole[128], *colon = strrchr(text, ':');
    if (colon == NULL || strlen(text) >= ADDRESS_TEXT_MAX)
        return -1;
    *colon = '\0';
    const char *host = text[0] != '\0' ? text : from->host;
    bool bare = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(whole, sizeof(whole), bare ? "[%s]:%s" : "%s:%s", host, colon + 1);
    return endpoint_parse(whole, ret);
}

/* ---- redirections ---- */

int redis_redirect_parse(const char *error, const struct endpoint *from, struct redis_redirect *ret)
{
    struct redis_redirect redirect = {.kind = REDIS_NOT_REDIRECTED};
    char text[128], *rest = text; /* longer than a redirection */
    snprintf(text, sizeof(text), "%s", error);
    const char *kind = strsep(&rest, " ");
    if (strcmp(kind, "MOVED") == 0)
        redirect.kind = REDIS_MOVED;
    else if (strcmp(kind, "ASK") == 0)
        redirect.kind = REDIS_ASK;
    else if (strcmp(kind, "CLUSTERDOWN") == 0)
        redirect.kind = REDIS_CLUSTER_DOWN;
    if (redirect.kind == REDIS_MOVED || redirect.kind == REDIS_ASK) {
        const char *slot = strsep(&rest, " ");
        char *address = strsep(&rest, " ");
        if (address == NULL || rest != NULL || (redirect.slot = read_slot(slot)) < 0 ||
            read_address(address, from, &redirect.server) < 0)
            return -1;
    }
    *ret = redirect;
    return 0;
}

/* ---- the table ---- */

/* A table that assigns a slot to two nodes is malformed, too. */
static int take_range(struct redis_slots *out, size_t node, char *word)
{
    char *rest = word;
    int first = read_slot(strsep(&rest, "-"));
    int last = rest != NULL ? read_slot(rest) : first;
    if (first < 0 || last < first)
        return -1;
    for (int slot = first; slot <= last; slot++) {
        if (out->owners[slot] != REDIS_SLOT_UNASSIGNED)
            return -1;
        out->owners[slot] = (uint16_t)node;
    }
    return 0;
}

/* Whether the node is a master whose address is known. */
static bool is_master(char *flags)
{
    const char *flag;
    bool master = false;
    while ((flag = strsep(&flags, ",")) != NULL) {
        if (strcmp(flag, "noaddr") == 0)
            return false;
        master = master || strcmp(flag, "master") == 0;
    }
    return master;
}

/* The address ends where the port of the cluster bus or the host name begins. */
static int add_node(struct redis_slots *out, char *address, const struct endpoint *from)
{
    address[strcspn(address, "@,")] = '\0';
    if (out->n == REDIS_NODES_MAX || read_address(address, from, &out->nodes[out->n]) < 0)
        return -1;
    out->n++;
    return 0;
}

/* A replica has no slots; a master that has none is not used. */
static int take_line(struct redis_slots *out, char *line, const struct endpoint *from)
{
    char *fields[FIELDS], *word;
    bool added = false;
    for (size_t i = 0; i < FIELDS; i++) {
        fields[i] = strsep(&line, " ");
        if (fields[i] == NULL || fields[i][0] == '\0')
            return -1;
    }
    if (!is_master(fields[FLAGS]))
        return 0;
    while ((word = strsep(&line, " ")) != NULL) {
        if (word[0] == '[')
            continue;
        if (!added && add_node(out, fields[ADDRESS], from) < 0)
            return -1;
        added = true;
        if (take_range(out, out->n - 1, word) < 0)
            return -1;
    }
    return 0;
}

int redis_slots_parse(const char *text, size_t len, const struct endpoint *from, struct redis_slots *out)
{
    char *copy = xstrndup(text, len), *rest = copy;
    int result = strlen(copy) == len ? 0 : -1;
    out->n = 0;
    memset(out->owners, 0xff, sizeof(out->owners));
    while (result == 0 && rest != NULL && rest[0] != '\0')
        result = take_line(out, strsep(&rest, "\n"), from);
    free(copy);
    return result;
}
