/* conf: see conf.h. The table, and the life of a configuration; what the table cannot check is in conf_check.c. */
#include "config/conf.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cpus.h"
#include "lib/vault.h"

enum { CONF_FILE_MAX = 1024 * 1024 };

#define SECONDS 1000LL
#define MINUTES (60 * SECONDS)
#define HOURS   (60 * MINUTES)
#define DAYS    (24 * HOURS)
#define MIB     (1024LL * 1024)

/* ---- the table ---- */

#define UPSTREAM struct conf_upstream
static const struct field upstream_fields[] = {
    KEY_FIELD(UPSTREAM, name),
    FIELD("base_url", S_STRING, UPSTREAM, base_url, REQUIRED, "scheme, host and port of the upstream",
          .max = 512),
    FIELD("key_files", S_PATHS, UPSTREAM, key_files, REQUIRED,
          "files with one API key each, or \"credential:NAME\" (systemd); several make a pool", ),
    FIELD("ca_file", S_PATH, UPSTREAM, ca_file, "null", "certificates to trust in place of the system's", ),
    FIELD("addresses", S_ENUM, UPSTREAM, addresses, "\"public\"",
          "where the name in base_url may lead: public addresses; private ones as well; any",
          .words = "public|private|any"),
    FIELD("connect_timeout", S_DURATION, UPSTREAM, connect_timeout_ms, "\"3s\"", "until a connection stands",
          .min = 10, .max = 5 * MINUTES),
    FIELD("timeout", S_DURATION, UPSTREAM, timeout_ms, "\"10s\"", "of a whole query", .min = 10,
          .max = 5 * MINUTES),
    FIELD("max_in_flight", S_INT, UPSTREAM, max_in_flight, "64", "queries at once, of one worker", .min = 1,
          .max = 10000),
    FIELD("queries_per_second", S_INT, UPSTREAM, queries_per_second, "0", "of one worker; 0: no limit",
          .max = 100000),
    FIELD("breaker_failures", S_INT, UPSTREAM, breaker_failures, "10",
          "failures in a row until nothing more is asked for a while; 0: never", .max = 1000000),
    FIELD("breaker_pause", S_DURATION, UPSTREAM, breaker_pause_ms, "\"30s\"", "the longest such while",
          .min = 500, .max = HOURS),
    FIELD("max_body", S_SIZE, UPSTREAM, max_body, "\"4MiB\"", "the largest answer taken", .min = 1024,
          .max = 64 * MIB),
};
static const struct table upstream_table = TABLE(UPSTREAM, upstream_fields);

#define ROUTE struct conf_route
static const struct field route_fields[] = {
    FIELD("provider", S_STRING, ROUTE, provider_name, REQUIRED, "a file of providers_dir, without .json",
          .min = 1, .max = 64),
    FIELD("upstream", S_STRING, ROUTE, upstream_name, REQUIRED, "one of upstreams", .min = 1, .max = 64),
    FIELD("path", S_STRING, ROUTE, path_text, "null", "what clients ask, when not the provider's", .min = 1,
          .max = 512),
    FIELD("upstream_path", S_STRING, ROUTE, upstream_path_text, "null",
          "what the upstream is asked, when not the provider's", .min = 1, .max = 512),
    FIELD("hook_secret_file", S_PATH, ROUTE, hook_secret_file, "null",
          "the secret in the address of the upstream's webhooks; null: none are taken", ),
};
static const struct table route_table = TABLE(ROUTE, route_fields);

#define REDIS struct conf_redis
static const struct field redis_fields[] = {
    FIELD("address", S_STRING, REDIS, address, REQUIRED, "IP:PORT or unix:PATH", .min = 1, .max = 256),
    FIELD("username", S_STRING, REDIS, username, "null", "whom to log in as", .min = 1, .max = 256),
    FIELD("password_file", S_PATH, REDIS, password_file, "null", "with what password", ),
    FIELD("database", S_INT, REDIS, database, "0", "its number in Redis", .max = 65535),
    FIELD("timeout", S_DURATION, REDIS, timeout_ms, "\"50ms\"",
          "the longest that Redis may hold up a request", .min = 1, .max = 10 * SECONDS),
    FIELD("prefix", S_STRING, REDIS, prefix, "\"taskproxy:\"", "of every key", .max = 64),
};
static const struct table redis_table = TABLE(REDIS, redis_fields);

#define CACHE struct conf_cache
static const struct field cache_fields[] = {
    FIELD("memory", S_SIZE, CACHE, memory, "\"64MiB\"", "for answers, in each worker", .min = MIB,
          .max = 1024 * 1024 * MIB),
    FIELD("terminal_ttl", S_DURATION, CACHE, terminal_ttl_ms, "\"24h\"", "how long an ended task is kept",
          .min = SECONDS, .max = 365 * DAYS),
    FIELD("missing_ttl", S_DURATION, CACHE, missing_ttl_ms, "\"5s\"",
          "how long an unknown task is remembered", .max = HOURS),
    FIELD("stale_for", S_DURATION, CACHE, stale_for_ms, "\"10m\"",
          "how long an old answer may stand in where asking has failed", .max = 7 * DAYS),
};
static const struct table cache_table = TABLE(CACHE, cache_fields);

#define LIMITS struct conf_limits
static const struct field limits_fields[] = {
    FIELD("waiters", S_INT, LIMITS, waiters, "20000", "requests that wait, in one worker", .min = 1,
          .max = 1000000),
    FIELD("fetches", S_INT, LIMITS, fetches, "4096", "tasks asked for at once, in one worker", .min = 1,
          .max = 1000000),
};
static const struct table limits_table = TABLE(LIMITS, limits_fields);

#define ACCESS struct conf_access
static const struct field access_fields[] = {
    FIELD("mode", S_ENUM, ACCESS, mode, "\"open\"",
          "open: whoever the web server lets in; teams: by token or link; nginx: whom it calls a team",
          .words = "open|teams|nginx"),
    FIELD("teams_file", S_PATH, ACCESS, teams_file, "null",
          "who the teams are; needed unless the mode is open", ),
    FIELD("ownership", S_ENUM, ACCESS, ownership, "\"none\"",
          "first-reader: a task is for the team alone that was the first to read it",
          .words = "none|first-reader"),
};
static const struct table access_table = TABLE(ACCESS, access_fields);

#define CONF struct conf
static const struct field conf_fields[] = {
    FIELD(
        "workers", S_INT, CONF, workers, "0",
        "processes; 0: as many as processors that its affinity and the CPU quota of its control group allow",
        .max = WORKERS_MAX),
    FIELD("socket_dir", S_PATH, CONF, socket_dir, "\"/run/taskproxy\"", "where the sockets are", ),
    FIELD("socket_group", S_ACCOUNT, CONF, socket_group, "\"www-data\"",
          "the web server's group; null: that of the process", .nullable = true, .min = 1, .max = 64),
    FIELD("user", S_ACCOUNT, CONF, user, "\"www-data\"",
          "user that workers run as when root starts the program", .min = 1, .max = 64),
    FIELD("sandbox", S_ENUM, CONF, sandbox, "\"on\"", "workers may make only the system calls that they need",
          .words = "on|off"),
    FIELD("providers_dir", S_PATH, CONF, providers_dir, "\"providers\"", "where the provider files are", ),
    FIELD("upstreams", S_MAP, CONF, upstreams, REQUIRED, "who is asked", .table = &upstream_table),
    FIELD("routes", S_LIST, CONF, routes, REQUIRED, "which providers are served, and from where",
          .table = &route_table),
    FIELD("redis", S_OBJECT, CONF, redis, "null", "null: memory only", .table = &redis_table),
    FIELD("cache", S_OBJECT, CONF, cache, "{}", "what is kept, and how long", .table = &cache_table),
    FIELD("limits", S_OBJECT, CONF, limits, "{}", "caps of one worker", .table = &limits_table),
    FIELD("access", S_OBJECT, CONF, access, "{}", "who may ask", .table = &access_table),
    FIELD("drain", S_DURATION, CONF, drain_ms, "\"30s\"", "how long an old worker may finish what it holds",
          .min = 100, .max = HOURS),
    FIELD("hung_after", S_DURATION, CONF, hung_after_ms, "\"10s\"",
          "how long a worker may stand still until it is replaced", .min = 5 * SECONDS, .max = HOURS),
    FIELD("log_level", S_ENUM, CONF, log_level, "\"info\"", "the least that is logged",
          .words = "debug|info|warn|error"),
    FIELD("log_format", S_ENUM, CONF, log_format, "\"text\"", "how a line looks: for people, or for programs",
          .words = "text|json"),
};
const struct table conf_table = TABLE(CONF, conf_fields);

/* ---- from the file to the end ---- */

static struct schema_source source_of(const struct conf *conf)
{
    return (struct schema_source){.path = conf->file->path, .text = conf->file->data, .len = conf->file->len};
}

struct conf *conf_load(const char *path, struct files *files, char **ret_error)
{
    struct conf *conf = xcalloc(1, sizeof(*conf));
    conf->files = files;
    char *why;
    const struct file *file = files_get(files, path, FILE_PLAIN, CONF_FILE_MAX, &why);
    if (file == NULL) {
        *ret_error = xasprintf("%s: %s", path, why);
        free(why);
        conf_free(conf);
        return NULL;
    }
    conf->file = file;
    const struct schema_source source = source_of(conf);
    *ret_error = NULL;
    if (schema_read(&conf_table, &source, conf, ret_error) == 0)
        *ret_error = conf_finish(conf, &source);
    if (*ret_error != NULL) {
        conf_free(conf);
        return NULL;
    }
    if (conf->workers == 0) {
        int cpus = cpus_usable("");
        conf->workers = cpus > WORKERS_MAX ? WORKERS_MAX : cpus;
    }
    return conf;
}

void conf_free(struct conf *conf)
{
    if (conf == NULL)
        return;
    for (size_t i = 0; i < conf->routes.n; i++) {
        struct conf_route *r = (struct conf_route *)conf->routes.items + i;
        pattern_done(&r->path);
        pattern_done(&r->upstream_path);
        vault_free(r->hook_secret);
    }
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *u = conf_upstream(conf, i);
        for (size_t k = 0; k < u->keys.n; k++)
            vault_free(conf_keys(u)[k]);
        free(u->keys.items);
    }
    for (size_t i = 0; i < conf->providers.n; i++)
        provider_free(((struct provider **)conf->providers.items)[i]);
    free(conf->providers.items);
    teams_free(conf->teams);
    vault_free(conf->redis.password);
    free(conf->redis.host);
    struct files *files = conf->files;
    schema_done(&conf_table, conf);
    files_free(files);
    free(conf);
}

static int is_provider_file(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

char *conf_check_providers(const struct conf *conf)
{
    struct dirent **entries;
    char *error = NULL;
    int n = scandir(conf->providers_dir, &entries, is_provider_file, alphasort);
    if (n < 0)
        return xasprintf("%s: %s", conf->providers_dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = xasprintf("%s/%s", conf->providers_dir, entries[i]->d_name);
        if (error == NULL)
            provider_free(provider_load(conf->files, path, &error));
        free(path);
        free(entries[i]);
    }
    free(entries);
    return error;
}

char *conf_error(const struct conf *conf, const char *pointer, const char *format, ...)
{
    const struct schema_source source = source_of(conf);
    va_list args;
    char *what;
    va_start(args, format);
    if (vasprintf(&what, format, args) < 0)
        abort();
    va_end(args);
    char *error = schema_error(&source, pointer, "%s", what);
    free(what);
    return error;
}

void conf_print(const struct conf *conf, struct buf *out)
{
    schema_print(&conf_table, conf, out);
}
