/* fcgi_parse: see fcgi_parse.h.
 *
 *     record:  version type id(2) length(2) padding reserved | content | padding
 *     request: BEGIN_REQUEST, PARAMS ..., empty PARAMS, STDIN ..., empty STDIN */
#include "net/fcgi_parse.h"

#include <string.h>

enum { HEADER_LEN = 8, VERSION = 1, ROLE_RESPONDER = 1 };
enum { BEGIN_REQUEST = 1, PARAMS = 4, STDIN = 5 };

struct record {
    int id;
    const unsigned char *content;
    size_t len;
    size_t padding;
};

/* The PARAMS stream, reassembled: names and values may cross record boundaries. */
struct params {
    unsigned char data[FCGI_PARSE_MAX];
    size_t len;
};

static struct params params; /* static, not on the stack: one check runs at a time */

/* Reads the record at `data`. Returns its total length, or 0 if it is incomplete. */
static size_t read_record(const unsigned char *data, size_t len, struct record *record)
{
    if (len < HEADER_LEN)
        return 0;
    *record = (struct record){.id = data[2] << 8 | data[3],
                              .content = data + HEADER_LEN,
                              .len = (size_t)(data[4] << 8 | data[5]),
                              .padding = data[6]};
    size_t whole = HEADER_LEN + record->len + record->padding;
    return whole <= len ? whole : 0;
}

/* Reads the length of a name or a value. Returns false if the stream ends within it. */
static bool read_length(size_t *at, size_t *ret_len)
{
    const unsigned char *p = params.data + *at;
    size_t left = params.len - *at;
    if (left < 1 || (p[0] >= 0x80 && left < 4))
        return false;
    if (p[0] < 0x80) {
        *ret_len = p[0];
        *at += 1;
    } else {
        *ret_len = (size_t)(p[0] & 0x7f) << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        *at += 4;
    }
    return true;
}

/* Whether every name and value ends within the stream, no name is empty, and none contains a NUL or a name
 * '='. */
static bool params_are_good(void)
{
    size_t at = 0, name_len, value_len;
    while (at < params.len) {
        if (!read_length(&at, &name_len) || !read_length(&at, &value_len))
            return false;
        if (name_len > params.len - at || value_len > params.len - at - name_len)
            return false;
        const unsigned char *name = params.data + at;
        if (name_len == 0 || memchr(name, '\0', name_len + value_len) != NULL ||
            memchr(name, '=', name_len) != NULL)
            return false;
        at += name_len + value_len;
    }
    return true;
}

static bool begin_is_good(const struct record *record)
{
    return record->id != 0 && record->len == 8 &&
           (record->content[0] << 8 | record->content[1]) == ROLE_RESPONDER;
}

/* Accepts a record, whose type is the `expected` one. Returns the type of the next record (the same one if
 * the stream continues), 0 if the request is complete, or -1 if the record is not valid here. */
static int accept_record(int expected, const struct record *record)
{
    /* libfcgi does not skip the padding of a record that ends a stream, and would parse it as records. */
    if (record->padding > 0 && (expected == BEGIN_REQUEST || record->len == 0))
        return -1;
    if (expected == BEGIN_REQUEST)
        return begin_is_good(record) ? PARAMS : -1;
    if (expected == STDIN)
        return record->len > 0 ? STDIN : 0;
    if (record->len == 0)
        return params_are_good() ? STDIN : -1;
    memcpy(params.data + params.len, record->content, record->len);
    params.len += record->len;
    return PARAMS;
}

/* Checks the start of a header, so that a malformed request is refused before its content arrives. */
static bool header_is_good(const unsigned char *data, size_t len, int expected)
{
    return (len < 1 || data[0] == VERSION) && (len < 2 || data[1] == expected);
}

enum fcgi_parse_verdict fcgi_parse_check(const unsigned char *data, size_t len)
{
    int expected = BEGIN_REQUEST, id = 0;
    size_t at = 0, whole;
    struct record record;
    params.len = 0;
    if (len > FCGI_PARSE_MAX)
        return FCGI_PARSE_BAD;
    while (expected != 0) {
        if (!header_is_good(data + at, len - at, expected))
            return FCGI_PARSE_BAD;
        whole = read_record(data + at, len - at, &record);
        if (whole == 0)
            return len == FCGI_PARSE_MAX ? FCGI_PARSE_BAD : FCGI_PARSE_PARTIAL;
        if (id != 0 && record.id != id)
            return FCGI_PARSE_BAD;
        id = record.id;
        expected = accept_record(expected, &record);
        if (expected < 0)
            return FCGI_PARSE_BAD;
        at += whole;
    }
    return at == len ? FCGI_PARSE_WHOLE : FCGI_PARSE_BAD;
}
