/* redis_slots: see redis_slots.h.
 *
 * The reply to CLUSTER NODES is a text, a line for each node:
 *
 *     ID HOST:PORT@PORT[,HOSTNAME...] FLAGS MASTER PING PONG EPOCH LINK [SLOT | FIRST-LAST | "[" MIGRATION "]"]...
 *
 * Unlike the reply to CLUSTER SLOTS, this text has IP addresses even if the cluster announces host names. */
#include "net/redis_slots.h"

#include <stdio.h>
#include <string.h>

enum { FIELDS = 8, ADDRESS_TEXT_MAX = 64 };
enum { ID, ADDRESS, FLAGS };

struct words {
    const char *at, *end; /* at == NULL: no further word */
};

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

/* ---- parts of the texts ---- */

/* Returns -1 if the text is not a decimal number of at most 5 digits. */
static int read_number(const char *text, size_t len)
{
    int number = 0;
    if (len == 0 || len > 5)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = 10 * number + (text[i] - '0');
    }
    return number;
}

static int read_slot(const char *text, size_t len)
{
    int slot = read_number(text, len);
    return slot < REDIS_SLOTS ? slot : -1;
}

/* "HOST:PORT", where an IPv6 address has no brackets. */
static int read_address(const char *text, size_t len, const struct endpoint *from, struct endpoint *ret)
{
    char host[ADDRESS_TEXT_MAX], whole[ADDRESS_TEXT_MAX + 10];
    const char *colon = memrchr(text, ':', len);
    size_t host_len = colon ? (size_t)(colon - text) : 0;
    int port = colon ? read_number(colon + 1, len - host_len - 1) : -1;
    if (port < 0 || host_len >= sizeof(host) || memchr(text, '\0', len) != NULL)
        return -1;
    snprintf(host, sizeof(host), "%.*s", (int)host_len, text);
    if (host_len == 0)
        snprintf(host, sizeof(host), "%s", from->host);
    bool bare = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(whole, sizeof(whole), bare ? "[%s]:%d" : "%s:%d", host, port);
    return endpoint_parse(whole, ret);
}

/* The next word; "" between two spaces. False after the last one. */
static bool next_word(struct words *words, struct words *ret)
{
    if (words->at == NULL)
        return false;
    const char *space = memchr(words->at, ' ', (size_t)(words->end - words->at));
    *ret = (struct words){words->at, space ? space : words->end};
    words->at = space ? space + 1 : NULL;
    return true;
}

static size_t length(const struct words *word)
{
    return (size_t)(word->end - word->at);
}

/* ---- redirections ---- */

int redis_redirect_parse(const char *error, const struct endpoint *from, struct redis_redirect *ret)
{
    struct words rest = {error, error + strlen(error)}, kind, slot, address, more;
    struct redis_redirect redirect = {.kind = REDIS_NOT_REDIRECTED};
    next_word(&rest, &kind);
    if (length(&kind) == 5 && memcmp(kind.at, "MOVED", 5) == 0)
        redirect.kind = REDIS_MOVED;
    else if (length(&kind) == 3 && memcmp(kind.at, "ASK", 3) == 0)
        redirect.kind = REDIS_ASK;
    else if (length(&kind) == 8 && memcmp(kind.at, "TRYAGAIN", 8) == 0)
        redirect.kind = REDIS_TRY_AGAIN;
    else if (length(&kind) == 11 && memcmp(kind.at, "CLUSTERDOWN", 11) == 0)
        redirect.kind = REDIS_CLUSTER_DOWN;
    if (redirect.kind == REDIS_MOVED || redirect.kind == REDIS_ASK) {
        if (!next_word(&rest, &slot) || !next_word(&rest, &address) || next_word(&rest, &more) ||
            (redirect.slot = read_slot(slot.at, length(&slot))) < 0 ||
            read_address(address.at, length(&address), from, &redirect.server) < 0)
            return -1;
    }
    *ret = redirect;
    return 0;
}

/* ---- the table ---- */

/* A table that assigns a slot to two nodes is malformed, too. */
static int take_range(struct redis_slots *out, size_t node, const struct words *word)
{
    const char *dash = memchr(word->at, '-', length(word));
    size_t first_len = dash ? (size_t)(dash - word->at) : length(word);
    int first = read_slot(word->at, first_len);
    int last = dash ? read_slot(dash + 1, length(word) - first_len - 1) : first;
    if (first < 0 || last < first)
        return -1;
    for (int slot = first; slot <= last; slot++) {
        if (out->owners[slot] != REDIS_SLOT_UNASSIGNED)
            return -1;
        out->owners[slot] = (uint16_t)node;
    }
    return 0;
}

static bool has_flag(const struct words *flags, const char *flag)
{
    size_t len = strlen(flag);
    for (const char *at = flags->at; at != NULL && at < flags->end;) {
        const char *comma = memchr(at, ',', (size_t)(flags->end - at)), *end = comma ? comma : flags->end;
        if ((size_t)(end - at) == len && memcmp(at, flag, len) == 0)
            return true;
        at = comma ? comma + 1 : NULL;
    }
    return false;
}

/* The address ends where the port of the cluster bus or the host name begins. */
static int add_node(struct redis_slots *out, const struct words *address, const struct endpoint *from)
{
    size_t len = 0;
    while (len < length(address) && address->at[len] != '@' && address->at[len] != ',')
        len++;
    if (out->n == REDIS_NODES_MAX || read_address(address->at, len, from, &out->nodes[out->n]) < 0)
        return -1;
    out->n++;
    return 0;
}

/* A replica has no slots; a master that has none is not used. */
static int take_line(struct redis_slots *out, struct words line, const struct endpoint *from)
{
    struct words fields[FIELDS], word;
    bool added = false;
    for (size_t i = 0; i < FIELDS; i++) {
        if (!next_word(&line, &fields[i]) || length(&fields[i]) == 0)
            return -1;
    }
    if (!has_flag(&fields[FLAGS], "master") || has_flag(&fields[FLAGS], "noaddr"))
        return 0;
    while (next_word(&line, &word)) {
        if (length(&word) > 0 && word.at[0] == '[')
            continue;
        if (!added && add_node(out, &fields[ADDRESS], from) < 0)
            return -1;
        added = true;
        if (take_range(out, out->n - 1, &word) < 0)
            return -1;
    }
    return 0;
}

int redis_slots_parse(const char *text, size_t len, const struct endpoint *from, struct redis_slots *out)
{
    out->n = 0;
    memset(out->owners, 0xff, sizeof(out->owners));
    for (const char *at = text, *end = text + len; at < end;) {
        const char *feed = memchr(at, '\n', (size_t)(end - at)), *line_end = feed ? feed : end;
        if (take_line(out, (struct words){at, line_end}, from) < 0)
            return -1;
        at = feed ? feed + 1 : end;
    }
    return 0;
}
