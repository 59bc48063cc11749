/* conf: see conf.h. The table, the checks that it cannot make, and the life of a configuration. */
#include "config/conf.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cpus.h"
#include "lib/tls.h"

enum { CONF_FILE_MAX = 1024 * 1024, CA_FILE_MAX = 4 * 1024 * 1024, HOOK_SECRET_MIN = 32, SENTINELS_MAX = 16 };

#define SECONDS 1000LL
#define MINUTES (60 * SECONDS)
#define HOURS   (60 * MINUTES)
#define DAYS    (24 * HOURS)
#define MIB     (1024LL * 1024)

#define HOST_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._:[]"

/* ---- checks of single values, for the table: the reason to refuse one, or NULL ---- */

static bool is_localhost(const char *host, size_t len)
{
    return len == strlen("localhost") && memcmp(host, "localhost", len) == 0;
}

/* The host of a URL that has a scheme. */
static const char *host_of(const char *url, size_t *ret_len)
{
    const char *host = strstr(url, "://") + 3;
    *ret_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return host;
}

/* scheme://host[:port] without a path, which belongs to the routes, and without a user. It is printed into nginx's
 * configuration without quotes. */
static const char *refuse_url(const void *value)
{
    const char *url = *(char *const *)value;
    bool plain = strncmp(url, "http://", 7) == 0;
    if (!plain && strncmp(url, "https://", 8) != 0)
        return "must begin with https:// (or http:// for a loopback address)";
    size_t len;
    const char *host = host_of(url, &len);
    if (host[strspn(host, HOST_CHARS)] != '\0' || host[0] == '\0' || host[0] == ':' || len > strlen(host) ||
        (host[len] != ':' && host[len] != '\0'))
        return "must be a scheme, a host and optionally a port, such as \"https://api.example.com\"";
    if (host[len] == ':') {
        int64_t port;
        if (parse_int(host + len + 1, &port) < 0 || port < 1 || port > 65535)
            return "has an invalid port";
    }
    if (plain && !is_localhost(host, len) && address_literal(host, len) != ADDRESS_LOOPBACK)
        return "http:// would send the key unencrypted; it is allowed for loopback addresses only";
    return NULL;
}

/* The secret is part of a path. */
static const char *refuse_hook_secret(const void *value)
{
    const char *text = ((const struct secret *)value)->text;
    size_t len =
        text ? strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") : 0;
    return text == NULL || text[len] == '\0' ? NULL
                                             : "the secret may contain letters, digits and - . _ ~ only";
}

/* nginx counts in whole seconds. */
static const char *refuse_part_of_second(const void *value)
{
    int64_t ms = *(const int64_t *)value;
    return ms == 0 || ms >= SECONDS ? NULL : "must be \"0s\", or at least \"1s\"";
}

/* ---- the table ---- */

#define UPSTREAM struct conf_upstream
static const struct field upstream_fields[] = {
    MEMBER(S_STRING, UPSTREAM, base_url, REQUIRED, "scheme, host and port of the upstream", .max = 512,
           .refuse = refuse_url),
    FIELD("key_files", S_SECRETS, UPSTREAM, keys, REQUIRED,
          "files with one API key each, or \"credential:NAME\" (systemd); several make a pool", .min = 1,
          .max = POOL_KEYS_MAX),
    MEMBER(S_STRING, UPSTREAM, account, "null",
           "account of its keys, if other upstreams use it, too: \"ownership\" is per account; null: the "
           "upstream's name",
           .min = 1, .max = 64),
    MEMBER(S_PATH, UPSTREAM, ca_file, "null", "CA certificates to trust instead of the system's", ),
    MEMBER(S_ENUM, UPSTREAM, addresses, "\"public\"",
           "addresses that the name in base_url may resolve to: public; public or private; any",
           .words = "public|private|any"),
    FIELD("connect_timeout", S_DURATION, UPSTREAM, connect_timeout_ms, "\"3s\"",
          "limit for connecting, TLS handshake included", .min = 10, .max = 5 * MINUTES),
    FIELD("timeout", S_DURATION, UPSTREAM, timeout_ms, "\"10s\"", "limit for a whole query", .min = 10,
          .max = 5 * MINUTES),
    MEMBER(S_INT, UPSTREAM, max_in_flight, "64",
           "concurrent queries of one worker; one of several teams gets at most three quarters", .min = 1,
           .max = 10000),
    MEMBER(S_INT, UPSTREAM, queries_per_second, "0", "queries per second of one worker; 0: no limit",
           .max = 100000),
    MEMBER(S_INT, UPSTREAM, breaker_failures, "10",
           "consecutive failures after which a team's queries pause; 0: they never pause", .max = 1000000),
    FIELD("breaker_pause", S_DURATION, UPSTREAM, breaker_pause_ms, "\"30s\"",
          "longest pause before the next probe", .min = 500, .max = HOURS),
    MEMBER(S_SIZE, UPSTREAM, max_body, "\"4MiB\"", "largest answer accepted", .min = 1024, .max = 64 * MIB),
};
static const struct table upstream_table = TABLE(UPSTREAM, upstream_fields);

#define ROUTE struct conf_route
static const struct field route_fields[] = {
    FIELD("provider", S_STRING, ROUTE, provider_name, REQUIRED,
          "name of a file in providers_dir, without .json", .refuse = schema_refuse_name),
    FIELD("upstream", S_STRING, ROUTE, upstream_name, REQUIRED, "name of a member of upstreams", ),
    FIELD("path", S_STRING, ROUTE, path_text, "null", "path that clients request, if not the provider's",
          .min = 1, .max = 512),
    FIELD("upstream_path", S_STRING, ROUTE, upstream_path_text, "null",
          "path at the upstream, if not the provider's", .min = 1, .max = 512),
    FIELD("hook_secret_file", S_SECRET, ROUTE, hook_secret, "null",
          "secret part of the webhook URL, at least 32 characters; null: webhooks are refused",
          .min = HOOK_SECRET_MIN, .refuse = refuse_hook_secret),
};
static const struct table route_table = TABLE(ROUTE, route_fields);

#define TLS struct conf_tls
static const struct field tls_fields[] = {
    MEMBER(S_PATH, TLS, ca_file, REQUIRED, "CA certificates to trust", ),
    MEMBER(S_PATH, TLS, cert_file, "null", "certificate to present to the server, and its chain", ),
    MEMBER(S_PATH, TLS, key_file, "null", "private key of cert_file, without a passphrase", ),
    MEMBER(
        S_STRING, TLS, server_name, "null",
        "name or IP address that the server's certificate must have; null: the IP address of the connection",
        .min = 1, .max = 253, .regex = "^[A-Za-z0-9._:-]*$",
        .must = "must be a host name or an IP address, as in the server's certificate"),
};
static const struct table tls_table = TABLE(TLS, tls_fields);

#define REDIS struct conf_redis
static const struct field redis_fields[] = {
    FIELD("address", S_STRING, REDIS, address, "null", "IP:PORT or unix:PATH; required without sentinels",
          .min = 1, .max = 256),
    FIELD("sentinels", S_STRINGS, REDIS, sentinels, "[]",
          "IP:PORT of the Sentinels that know the address of the master", .max = SENTINELS_MAX),
    FIELD("master_name", S_STRING, REDIS, master_name, "null", "name of the master in the Sentinels",
          .min = 1, .max = 64),
    FIELD("cluster", S_BOOL, REDIS, cluster, "false",
          "the address is that of any node of a Redis Cluster, from which workers learn the others", ),
    FIELD("username", S_STRING, REDIS, username, "null", "user name for AUTH", .min = 1, .max = 256),
    FIELD("password_file", S_SECRET, REDIS, password, "null", "file with the password for AUTH",
          .optional = true),
    FIELD("database", S_INT, REDIS, database, "0", "number of the database (SELECT); 0 in a cluster",
          .max = 65535),
    FIELD("timeout", S_DURATION, REDIS, timeout_ms, "\"50ms\"", "longest time that a request waits for Redis",
          .min = 1, .max = 10 * SECONDS),
    FIELD("prefix", S_STRING, REDIS, prefix, "\"taskproxy:\"",
          "prefix of every key; without braces in a cluster", .max = 64),
    FIELD("plaintext", S_BOOL, REDIS, plaintext, "false",
          "allow an unencrypted connection to another host", ),
    FIELD("tls", S_OBJECT, REDIS, tls, "null",
          "encrypt the connections, to Sentinels and all nodes of a cluster, too; null: unencrypted",
          .table = &tls_table),
};
static const struct table redis_table = TABLE(REDIS, redis_fields);

#define CACHE struct conf_cache
static const struct field cache_fields[] = {
    MEMBER(S_SIZE, CACHE, memory, "\"64MiB\"", "memory for answers in each worker", .min = MIB,
           .max = 1024 * 1024 * MIB),
    FIELD("terminal_ttl", S_DURATION, CACHE, terminal_ttl_ms, "\"24h\"", "how long a finished task is kept",
          .min = SECONDS, .max = 365 * DAYS),
    FIELD("missing_ttl", S_DURATION, CACHE, missing_ttl_ms, "\"5s\"",
          "how long an unknown task is answered from memory", .max = HOURS),
    FIELD("stale_for", S_DURATION, CACHE, stale_for_ms, "\"10m\"",
          "how long an old answer may be served while the upstream fails", .max = 7 * DAYS),
};
static const struct table cache_table = TABLE(CACHE, cache_fields);

#define LIMITS struct conf_limits
static const struct field limits_fields[] = {
    MEMBER(S_INT, LIMITS, waiters, "20000",
           "tasks that the held requests and event streams of one worker wait for", .min = 1, .max = 1000000),
    MEMBER(S_INT, LIMITS, fetches, "4096", "tasks that one worker fetches at the same time", .min = 1,
           .max = 1000000),
    MEMBER(S_SIZE, LIMITS, unsent, "\"64MiB\"",
           "memory of one worker for answers that slow clients have not read", .min = MIB,
           .max = 1024 * 1024 * MIB),
};
static const struct table limits_table = TABLE(LIMITS, limits_fields);

#define ACCESS struct conf_access
static const struct field access_fields[] = {
    MEMBER(
        S_ENUM, ACCESS, mode, "\"open\"",
        "open: any client that the web server admits; teams: by token or link; nginx: nginx names the team",
        .words = "open|teams|nginx"),
    MEMBER(S_PATH, ACCESS, teams_file, "null", "the teams file; required unless the mode is open", ),
    MEMBER(S_ENUM, ACCESS, ownership, "\"none\"",
           "first-reader: a task belongs to the first team that reads it; needs redis",
           .words = "none|first-reader"),
    FIELD("link_max_ttl", S_DURATION, ACCESS, link_max_ttl_ms, "\"7d\"",
          "a signed link that expires later than this is refused", .min = SECONDS, .max = 366 * DAYS),
};
static const struct table access_table = TABLE(ACCESS, access_fields);

#define CONF       struct conf
#define SOCKET_DIR MEMBER(S_PATH, CONF, socket_dir, "\"/run/taskproxy\"", "folder for the sockets", )
static const struct field conf_fields[] = {
    MEMBER(S_INT, CONF, workers, "0",
           "worker processes; 0: one per processor within the CPU affinity and quota", .max = WORKERS_MAX),
    SOCKET_DIR,
    MEMBER(S_ACCOUNT, CONF, socket_group, "\"www-data\"",
           "group of the web server; null: the group of the process", .nullable = true, .min = 1, .max = 64),
    MEMBER(S_ACCOUNT, CONF, user, "\"www-data\"",
           "user that workers and the status server run as if root starts the program", .min = 1, .max = 64),
    MEMBER(S_ENUM, CONF, sandbox, "\"on\"",
           "limit workers and the status server to the system calls and files that workers need",
           .words = "on|off"),
    MEMBER(S_PATH, CONF, providers_dir, "\"providers\"", "folder with the provider files", ),
    MEMBER(S_MAP, CONF, upstreams, REQUIRED, "the upstreams to query", .min = 1, .max = SCHEMA_LIST_MAX,
           .table = &upstream_table),
    MEMBER(S_LIST, CONF, routes, REQUIRED, "the providers to serve, each from an upstream", .min = 1,
           .max = SCHEMA_LIST_MAX, .table = &route_table),
    MEMBER(S_OBJECT, CONF, redis, "null", "the Redis that workers share; null: memory only",
           .table = &redis_table),
    MEMBER(S_OBJECT, CONF, cache, "{}", "what to keep, and for how long", .table = &cache_table),
    MEMBER(S_OBJECT, CONF, limits, "{}", "limits of one worker", .table = &limits_table),
    MEMBER(S_OBJECT, CONF, access, "{}", "access control", .table = &access_table),
    FIELD(
        "nginx_cache", S_DURATION, CONF, nginx_cache_ms, "\"0s\"",
        "how long nginx may repeat an answer from its own cache, if taskproxy-cache.conf is included: \"1s\" "
        "to \"10s\"; 0s: not at all",
        .max = 10 * SECONDS, .refuse = refuse_part_of_second),
    FIELD("drain", S_DURATION, CONF, drain_ms, "\"30s\"",
          "how long a worker that is stopping may finish its requests", .min = 100, .max = HOURS),
    FIELD("hung_after", S_DURATION, CONF, hung_after_ms, "\"10s\"",
          "a worker that does not respond for this long is replaced; at most half of systemd's WatchdogSec=",
          .min = 5 * SECONDS, .max = HOURS),
    MEMBER(S_ENUM, CONF, log_level, "\"info\"", "lowest level to log", .words = "debug|info|warn|error"),
    MEMBER(S_ENUM, CONF, log_format, "\"text\"", "text for people, JSON for programs", .words = "text|json"),
    MEMBER(S_BOOL, CONF, audit, "false",
           "with ownership: log the claims, first reads and refusals of tasks", ),
};
const struct table conf_table = TABLE(CONF, conf_fields);

static const struct field socket_dir_field[] = {SOCKET_DIR};
static const struct table socket_dir_table = {
    .fields = socket_dir_field, .n_fields = 1, .size = sizeof(CONF), .partial = true};

/* ---- checks that the table cannot make; each returns an error, allocated, or NULL ---- */

/* The operator chose an address in base_url; what a name resolves to is chosen by others. */
static unsigned allowed_addresses(const struct conf_upstream *u)
{
    static const unsigned allowed[] = {[ADDRESSES_PUBLIC] = ADDRESS_BIT(ADDRESS_PUBLIC),
                                       [ADDRESSES_PRIVATE] =
                                           ADDRESS_BIT(ADDRESS_PUBLIC) | ADDRESS_BIT(ADDRESS_PRIVATE),
                                       [ADDRESSES_ANY] = ADDRESS_ANY};
    size_t len;
    const char *host = host_of(u->base_url, &len);
    if (is_localhost(host, len))
        return ADDRESS_BIT(ADDRESS_LOOPBACK);
    return address_literal(host, len) >= 0 ? ADDRESS_ANY : allowed[u->addresses];
}

static char *finish_upstream(struct conf *conf, struct conf_upstream *u)
{
    char *why = NULL, *error = NULL;
    u->allowed = allowed_addresses(u);
    if (u->ca_file == NULL)
        return NULL;
    u->ca = files_get(conf->files, u->ca_file, FILE_PLAIN, CA_FILE_MAX, &why);
    struct ssl_ctx_st *trial = tls_new();
    if (u->ca == NULL || tls_trust(trial, u->ca) < 0)
        error = conf_error(conf, "/upstreams/%s/ca_file: \"%s\" %s", u->name, u->ca_file,
                           why ? why : "contains no certificate");
    tls_free(trial);
    free(why);
    return error;
}

/* The provider of that name, loaded at its first use. */
static struct provider *find_provider(struct conf *conf, const char *name, char **ret_error)
{
    struct provider *provider = provider_find(&conf->providers, name);
    if (provider != NULL)
        return provider;
    char *path = xasprintf("%s/%s.json", conf->providers_dir, name);
    provider = provider_load(conf->files, path, ret_error);
    free(path);
    if (provider == NULL)
        return NULL;
    struct provider **all = xrealloc(conf->providers.items, (conf->providers.n + 1) * sizeof(*all));
    all[conf->providers.n] = provider;
    conf->providers = (struct list){.items = all, .n = conf->providers.n + 1};
    return provider;
}

/* Whether all keys are ACCESS_KEY:SECRET_KEY; without `all`, those with a colon. */
static bool are_key_pairs(const struct conf_upstream *upstream, bool all)
{
    for (size_t i = 0; i < upstream->keys.n; i++) {
        const char *key = conf_keys(upstream)[i].text;
        if (key == NULL)
            continue; /* not read */
        size_t access_len = strcspn(key, ":"), secret_len = strlen(key + access_len);
        bool pair = access_len > 0 && access_len <= 256 && secret_len >= 2 && secret_len <= 257;
        if (!pair && (all || secret_len > 0))
            return false;
    }
    return true;
}

/* nginx and the workers know one proxy protocol. Returns false if this is a second one. */
static bool take_proxy(struct conf *conf, const struct provider_proxy *proxy)
{
    const struct provider_proxy *known = conf->proxy;
    if (proxy->path == NULL)
        return true;
    conf->proxy = proxy;
    return known == NULL ||
           (strcmp(known->path, proxy->path) == 0 && strcasecmp(known->header, proxy->header) == 0 &&
            strcmp(known->origin, proxy->origin) == 0);
}

static char *finish_route(struct conf *conf, size_t i)
{
    struct conf_route *r = (struct conf_route *)conf->routes.items + i;
    char *why = NULL, *error;
    const char *refusal;
    r->upstream = list_find(&conf->upstreams, sizeof(*r->upstream), r->upstream_name);
    if (r->upstream == NULL)
        return conf_error(conf, "/routes/%zu/upstream: no upstream has this name", i);
    r->provider = find_provider(conf, r->provider_name, &why);
    if (r->provider == NULL) {
        error = strstr(why, ".json:") && strstr(why, "cannot be read") == NULL
                    ? xstrdup(why)
                    : conf_error(conf, "/routes/%zu/provider: %s", i, why);
        free(why);
        return error;
    }
    const char *path = r->path_text ? r->path_text : r->provider->path_text;
    const char *upstream_path = r->upstream_path_text ? r->upstream_path_text : r->provider->path_text;
    if (provider_pattern(r->provider, path, &r->path, &refusal) < 0)
        return conf_error(conf, "/routes/%zu/path: %s", i, refusal);
    if (provider_pattern(r->provider, upstream_path, &r->upstream_path, &refusal) < 0)
        return conf_error(conf, "/routes/%zu/upstream_path: %s", i, refusal);
    if (!pattern_same_variables(&r->path, &r->upstream_path))
        return conf_error(conf,
                          "/routes/%zu/path: must have the variables of upstream_path, in the same order", i);
    if (!take_proxy(conf, &r->provider->proxy))
        return conf_error(conf, "/routes/%zu/provider: its \"proxy\" differs from that of another route", i);
    if (r->path_text == NULL && r->provider->result_path.text != NULL)
        r->result_path = &r->provider->result_path;
    bool needs_pairs = strstr(r->provider->auth.value, "{jwt}") != NULL;
    bool signs = needs_pairs || strstr(r->provider->auth.value, "{key-or-jwt}") != NULL;
    if (signs && !are_key_pairs(r->upstream, needs_pairs))
        return conf_error(conf,
                          "/routes/%zu/upstream: this provider's tokens are signed: each key file must "
                          "contain %sACCESS_KEY:SECRET_KEY, at most 256 characters each",
                          i, needs_pairs ? "" : "a key without a colon, or ");
    r->named = true;
    for (size_t k = 0; k < i; k++) {
        const struct conf_route *other = conf_route(conf, k);
        r->named &= other->provider != r->provider;
        if (other->provider == r->provider && other->upstream == r->upstream &&
            strcmp(other->upstream_path.text, r->upstream_path.text) != 0)
            return conf_error(conf,
                              "/routes/%zu/upstream_path: another route has this provider and upstream; "
                              "their tasks could not be distinguished",
                              i);
        if (strcmp(other->path.text, r->path.text) == 0)
            return conf_error(
                conf, "/routes/%zu/provider: another route has the same path: give one of them a \"path\"",
                i);
    }
    if (r->hook_secret.text != NULL && r->provider->hook.n == 0)
        return conf_error(conf, "/routes/%zu/hook_secret_file: the provider's file has no \"hook\"", i);
    if (r->hook_secret.text != NULL &&
        strcmp(r->path.variables[r->path.n_variables - 1]->name, "task_id") != 0)
        return conf_error(conf,
                          "/routes/%zu/hook_secret_file: the last variable of the path must be {task_id}", i);
    return NULL;
}

/* The files of "tls", in the order in which OpenSSL needs them. */
static const struct {
    const char *key;
    size_t path; /* its offset in struct conf_tls */
    enum file_kind kind;
    int (*use)(struct ssl_ctx_st *settings, const struct file *file);
    const char *refusal;
} tls_files[] = {
    {"ca_file", offsetof(TLS, ca_file), FILE_PLAIN, tls_trust, "contains no certificate"},
    {"cert_file", offsetof(TLS, cert_file), FILE_LIVE, tls_present, "contains no certificate"},
    {"key_file", offsetof(TLS, key_file), FILE_SECRET, tls_use_key,
     "is not the private key of cert_file, or needs a passphrase"},
};

static char *finish_tls(struct conf *conf)
{
    struct conf_tls *tls = &conf->redis.tls;
    char *error = NULL;
    if (tls->ca_file == NULL)
        return NULL;
    if (!HAVE_HIREDIS_SSL)
        return conf_error(conf,
                          "/redis/tls: this build's hiredis library has no TLS (Debian 13 has it); instead, "
                          "set \"address\" to a local stunnel, or to a stream proxy of nginx with "
                          "proxy_ssl, that connects to Redis");
    if ((tls->cert_file == NULL) != (tls->key_file == NULL))
        return conf_error(conf, "/redis/tls: cert_file and key_file need each other");
    tls->settings = tls_new();
    for (size_t i = 0; i < NELEMS(tls_files) && error == NULL; i++) {
        const char *path = *(char *const *)((const char *)tls + tls_files[i].path);
        char *why = NULL;
        const struct file *file =
            path ? files_get(conf->files, path, tls_files[i].kind, CA_FILE_MAX, &why) : NULL;
        if (why != NULL || (file != NULL && tls_files[i].use(tls->settings, file) < 0))
            error = conf_error(conf, "/redis/tls/%s: \"%s\" %s", tls_files[i].key, path,
                               why ? why : tls_files[i].refusal);
        free(why);
    }
    return error;
}

/* The endpoint must be an IP address, to which unencrypted connections are allowed. */
static char *take_endpoint(struct conf *conf, const char *pointer, const char *text, struct endpoint *out)
{
    const struct conf_redis *redis = &conf->redis;
    if (endpoint_parse(text, out) < 0)
        return conf_error(conf,
                          "%s: must be IP:PORT%s; host names are not "
                          "supported, because resolving them would block",
                          pointer, redis->address && !redis->cluster ? " or unix:PATH" : "");
    if (!redis->plaintext && redis->tls.ca_file == NULL && !out->loopback)
        return conf_error(conf,
                          "%s: the connection to another host would not be encrypted; configure \"tls\", "
                          "or, if the network between the hosts is trusted, set \"plaintext\": true",
                          pointer);
    return NULL;
}

static char *take_address(struct conf *conf)
{
    struct conf_redis *redis = &conf->redis;
    redis->name = redis->cluster ? xasprintf("%s (cluster)", redis->address) : xstrdup(redis->address);
    redis->endpoints = xcalloc(1, sizeof(*redis->endpoints));
    if (redis->sentinels.n > 0 || redis->master_name != NULL)
        return conf_error(conf, "/redis/address: cannot be combined with sentinels or master_name");
    if (redis->cluster || strncmp(redis->address, "unix:/", 6) != 0)
        return take_endpoint(conf, "/redis/address", redis->address, redis->endpoints);
    redis->socket = redis->address + 5;
    return redis->tls.ca_file ? conf_error(conf, "/redis/tls: is for IP:PORT, not for a UNIX socket") : NULL;
}

static char *take_sentinels(struct conf *conf)
{
    struct conf_redis *redis = &conf->redis;
    char pointer[40], *error = NULL;
    if (redis->sentinels.n == 0)
        return conf_error(conf, "/redis: needs \"address\", or \"sentinels\" and \"master_name\"");
    if (redis->master_name == NULL)
        return conf_error(conf, "/redis/sentinels: need a master_name");
    redis->name = xasprintf("%s (Sentinel)", redis->master_name);
    redis->endpoints = xcalloc(redis->sentinels.n, sizeof(*redis->endpoints));
    for (size_t i = 0; i < redis->sentinels.n && error == NULL; i++) {
        snprintf(pointer, sizeof(pointer), "/redis/sentinels/%zu", i);
        error = take_endpoint(conf, pointer, ((char **)redis->sentinels.items)[i], &redis->endpoints[i]);
    }
    return error;
}

/* The text between braces would be a hash tag of its own. */
static char *check_cluster(struct conf *conf)
{
    const struct conf_redis *redis = &conf->redis;
    if (redis->address == NULL)
        return conf_error(conf, "/redis/cluster: cannot be combined with sentinels; needs \"address\", the "
                                "IP:PORT of any node");
    if (redis->database != 0)
        return conf_error(conf, "/redis/database: must be 0, because a Redis Cluster has no other database");
    if (strpbrk(redis->prefix, "{}") != NULL)
        return conf_error(conf, "/redis/prefix: must not contain \"{\" or \"}\", which in a Redis Cluster "
                                "choose the node that has the key");
    return NULL;
}

static char *finish_redis(struct conf *conf)
{
    const struct conf_redis *redis = &conf->redis;
    if (redis->prefix == NULL) /* it has a default, if there is "redis" */
        return NULL;
    char *error = redis->address ? take_address(conf) : take_sentinels(conf);
    if (error == NULL && redis->cluster)
        error = check_cluster(conf);
    if (error == NULL && redis->username != NULL && redis->password.path == NULL)
        error = conf_error(conf, "/redis/username: needs a password_file");
    return error ? error : finish_tls(conf);
}

static bool share_key(const struct conf_upstream *a, const struct conf_upstream *b)
{
    for (size_t i = 0; i < a->keys.n; i++) {
        for (size_t k = 0; k < b->keys.n; k++) {
            const char *key = conf_keys(a)[i].text, *other = conf_keys(b)[k].text;
            if (key != NULL && other != NULL && strcmp(key, other) == 0)
                return true;
        }
    }
    return false;
}

/* Tasks of one account would have two owners if upstreams gave it two names. */
static char *check_account(const struct conf *conf, const struct conf_upstream *u)
{
    for (const struct conf_upstream *other = conf_upstream(conf, 0); other < u; other++) {
        if (strcmp(conf_account(u), conf_account(other)) == 0 || !share_key(u, other))
            continue;
        return conf_error(
            conf, "/upstreams/%s/account: must be \"%s\" for \"ownership\": upstream \"%s\" has the same key",
            u->name, conf_account(other), other->name);
    }
    return NULL;
}

static char *check_ownership(const struct conf *conf)
{
    char *error = NULL;
    for (size_t i = 0; i < conf->routes.n && error == NULL; i++) {
        if (conf_route(conf, i)->provider->identity.n == 0)
            error = conf_error(
                conf, "/routes/%zu/provider: its file has no \"identity\", which \"ownership\" needs", i);
    }
    for (size_t i = 0; i < conf->upstreams.n && error == NULL; i++)
        error = check_account(conf, conf_upstream(conf, i));
    return error;
}

static char *finish_access(struct conf *conf)
{
    const struct conf_access *access = &conf->access;
    char *why, *error = NULL;
    if (access->mode != ACCESS_OPEN && access->teams_file == NULL)
        return conf_error(conf, "/access/mode: \"%s\" needs a teams_file",
                          access->mode == ACCESS_TEAMS ? "teams" : "nginx");
    if (access->mode == ACCESS_NGINX && conf->nginx_cache_ms > 0)
        return conf_error(conf,
                          "/nginx_cache: is not possible in the mode \"nginx\": the cache would not know "
                          "the teams");
    if (access->mode == ACCESS_OPEN && access->ownership != OWNERSHIP_NONE)
        return conf_error(conf, "/access/ownership: needs the mode \"teams\" or \"nginx\"");
    if (access->ownership != OWNERSHIP_NONE && conf->redis.name == NULL)
        return conf_error(conf,
                          "/access/ownership: needs \"redis\", where all workers store the owners of tasks");
    if (access->ownership == OWNERSHIP_NONE && conf->audit)
        return conf_error(conf, "/audit: needs \"ownership\"");
    if (access->ownership != OWNERSHIP_NONE && (error = check_ownership(conf)) != NULL)
        return error;
    if (access->teams_file == NULL)
        return NULL;
    const struct file *file = files_get(conf->files, access->teams_file, FILE_LIVE, TEAMS_FILE_MAX, &why);
    if (file != NULL)
        error = teams_load(conf->files, file, &conf->providers, &conf->teams);
    else if (why != NULL)
        error = conf_error(conf, "/access/teams_file: \"%s\" %s", access->teams_file, why);
    free(why);
    return error;
}

static char *conf_finish(struct conf *conf)
{
    char *error = NULL;
    if (strlen(conf->socket_dir) > 80)
        error = conf_error(conf, "/socket_dir: is too long for the path of a UNIX socket");
    for (size_t i = 0; i < conf->upstreams.n && error == NULL; i++)
        error = finish_upstream(conf, (struct conf_upstream *)conf->upstreams.items + i);
    for (size_t i = 0; i < conf->routes.n && error == NULL; i++)
        error = finish_route(conf, i);
    if (error == NULL)
        error = finish_redis(conf);
    return error ? error : finish_access(conf);
}

/* ---- life of a configuration ---- */

static int read_keys(struct conf *conf, const struct table *table, const char *path, char **ret_error)
{
    char *why;
    conf->source = (struct schema_source){
        .file = files_get(conf->files, path, FILE_PLAIN, CONF_FILE_MAX, &why), .files = conf->files};
    if (conf->source.file != NULL)
        return schema_read(table, &conf->source, conf, ret_error);
    *ret_error = xasprintf("%s: %s", path, why);
    free(why);
    return -1;
}

char *conf_socket_dir(const char *path, char **ret_error)
{
    struct conf conf = {.files = files_new(FILES_ALL)};
    char *dir = read_keys(&conf, &socket_dir_table, path, ret_error) == 0 ? conf.socket_dir : NULL;
    files_free(conf.files);
    return dir;
}

struct conf *conf_load(const char *path, struct files *files, char **ret_error)
{
    struct conf *conf = xcalloc(1, sizeof(*conf));
    conf->files = files;
    if (read_keys(conf, &conf_table, path, ret_error) == 0)
        *ret_error = conf_finish(conf);
    if (*ret_error != NULL) {
        conf_free(conf);
        return NULL;
    }
    if (conf->workers == 0) {
        int cpus = cpus_usable("");
        conf->workers = cpus > WORKERS_MAX ? WORKERS_MAX : cpus;
    }
    files_prune(files);
    return conf;
}

/* Replaces the file at `changed` by the one on the disk, or records why it cannot be used. */
static struct conf *renew_file(const char *path, struct conf *conf, const char *changed)
{
    char *error = NULL;
    struct conf *renewed = conf_load(path, files_renew(conf->files, changed), &error);
    if (renewed == NULL) {
        files_refuse(conf->files, changed, error);
        return conf;
    }
    conf_free(conf);
    return renewed;
}

struct conf *conf_renew(const char *path, const struct files *in_force)
{
    const struct file *file;
    char *error = NULL;
    struct conf *conf = conf_load(path, files_renew(in_force, NULL), &error);
    if (conf != NULL)
        return conf;
    free(error);
    conf = conf_load(path, files_renew(in_force, ""), &error);
    if (conf == NULL)
        abort(); /* these files have been accepted before */
    for (size_t i = 0; (file = files_at(in_force, i)) != NULL; i++) {
        if (file_is_outdated(file) && files_find(conf->files, file->path) != NULL)
            conf = renew_file(path, conf, file->path);
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
    }
    for (size_t i = 0; i < conf->providers.n; i++)
        provider_free(((struct provider **)conf->providers.items)[i]);
    free(conf->providers.items);
    teams_done(&conf->teams);
    free(conf->redis.name);
    free(conf->redis.endpoints);
    tls_free(conf->redis.tls.settings);
    struct files *files = conf->files;
    schema_done(&conf_table, conf);
    files_free(files);
    free(conf);
}

static bool has_route(const struct conf *conf, const struct conf_upstream *upstream)
{
    for (size_t i = 0; i < conf->routes.n; i++) {
        if (conf_route(conf, i)->upstream == upstream)
            return true;
    }
    return false;
}

void conf_wipe_unused(struct conf *conf)
{
    files_wipe_secrets(conf->files);
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *upstream = conf_upstream(conf, i);
        const struct secret *keys = conf_keys(upstream);
        for (size_t k = 0; k < upstream->keys.n && !has_route(conf, upstream); k++)
            explicit_bzero(keys[k].text, strlen(keys[k].text));
    }
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

void conf_print(const struct conf *conf, struct buf *out)
{
    schema_print(&conf_table, conf, out);
}
