/* A value from Redis. A valid one can be written and read again, and does not stay fresh forever. */
#include "fuzz.h"

#include <string.h>

#include "task/snapshot.h"

static const char digest[] = "0123456789abcdef";
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 86400000, .stale_for_ms = 600000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static const struct snapshot_reading reading = {digest, &rules, {5000, 1736867746000}, 1000};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why = NULL;
    struct snapshot *s = snapshot_decode((const char *)data, size, &reading, &why);
    PROMISE((s == NULL) == (why != NULL));
    if (s == NULL)
        return 0;
    PROMISE(s->since_ms <= reading.now.ms && s->fresh_until_ms <= s->since_ms + rules.terminal_ttl_ms);
    struct buf value;
    buf_init(&value, 2 * size + 1024);
    snapshot_encode(s, digest, reading.now.ms - s->since_ms + reading.ttl_ms, &value);
    struct snapshot *again = snapshot_decode(value.data, value.len, &reading, &why);
    PROMISE(again != NULL && again->fresh_until_ms == s->fresh_until_ms);
    PROMISE(strcmp(again->identity, s->identity) == 0 && strcmp(again->key, s->key) == 0);
    PROMISE(strcmp(again->views[VIEW_NATIVE].etag, s->views[VIEW_NATIVE].etag) == 0);
    snapshot_unref(again);
    snapshot_unref(s);
    buf_done(&value);
    return 0;
}
