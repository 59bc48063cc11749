/* conf: the configuration, read once and never changed.
 *
 * One table gives parsing, defaults, bounds, --print-config and the reference (schema.h). Loading reads
 * everything that the configuration names - provider files, keys, certificates - so a loaded configuration is
 * complete. A reload makes a new one, in new workers. */
#ifndef CONF_H
#define CONF_H

#include "lib/address.h"
#include "lib/log.h"
#include "config/teams.h"

/* The addresses that an upstream's name may resolve to; in the order of the words of "addresses". */
enum addresses { ADDRESSES_PUBLIC, ADDRESSES_PRIVATE, ADDRESSES_ANY };

struct conf_upstream {
    char *name;
    char *base_url;   /* scheme, host, port; no path, no '/' at the end */
    struct list keys; /* of struct secret */
    char *account;    /* NULL: the upstream's name; see conf_account */
    char *ca_file;    /* NULL: the system's */
    int addresses;    /* enum addresses */
    int64_t connect_timeout_ms;
    int64_t timeout_ms; /* of a whole query, including its time in the queue */
    int64_t max_in_flight;
    int64_t max_body;           /* bytes */
    int64_t queries_per_second; /* of one worker; 0: no limit */
    int64_t breaker_failures;   /* in a row, until queries pause; 0: never */
    int64_t breaker_pause_ms;   /* longest pause before a probe */

    unsigned allowed;      /* the kinds of addresses (address.h) that it may have, as bits */
    const struct file *ca; /* (ref) the content of ca_file, or NULL */
};

struct conf_route {
    char *provider_name;
    char *upstream_name;
    char *path_text;           /* NULL: the provider's */
    char *upstream_path_text;  /* NULL: the provider's */
    struct secret hook_secret; /* none: webhooks are refused */

    struct provider *provider;            /* (ref) */
    const struct conf_upstream *upstream; /* (ref) */
    struct pattern path;                  /* that clients request */
    struct pattern upstream_path;         /* that queries request */
    const struct pattern *result_path;    /* (ref) that clients request for the result alone; NULL: none */
    bool named; /* /v1/tasks/PROVIDER/ID leads to it: it is the first route of its provider */
};

struct conf_tls {
    char *ca_file; /* NULL: no TLS */
    char *cert_file;
    char *key_file;
    char *server_name; /* NULL: the server's IP address */

    struct ssl_ctx_st *settings; /* of these files; NULL: no TLS */
};

struct conf_redis {
    char *address;         /* NULL: the sentinels know it */
    struct list sentinels; /* of char * */
    char *master_name;     /* that the sentinels use */
    bool cluster;          /* the address is that of any node of a Redis Cluster */
    char *username;
    struct secret password; /* may be none; a path without a text: it cannot be read, so Redis is not used */
    int64_t database;
    int64_t timeout_ms;
    char *prefix;
    bool plaintext; /* TCP to another host without TLS is allowed */
    struct conf_tls tls;

    char *name;                 /* for messages; NULL: no Redis, memory only */
    const char *socket;         /* (ref) the path in the address, or NULL */
    struct endpoint *endpoints; /* of the sentinels, or the one of the address */
};

struct conf_cache {
    int64_t memory; /* bytes */
    int64_t terminal_ttl_ms;
    int64_t missing_ttl_ms;
    int64_t stale_for_ms;
};

struct conf_limits {
    int64_t waiters;
    int64_t fetches;
    int64_t unsent; /* bytes */
};

enum access_mode {
    ACCESS_OPEN,  /* every client that the web server admits */
    ACCESS_TEAMS, /* clients with a team's token or link */
    ACCESS_NGINX, /* nginx names the team (TASKPROXY_TEAM), or clients with a link */
};

enum ownership_mode { OWNERSHIP_NONE, OWNERSHIP_FIRST_READER };

struct conf_access {
    int mode;         /* enum access_mode */
    char *teams_file; /* NULL: there are no teams */
    int ownership;    /* enum ownership_mode */
    int64_t link_max_ttl_ms;
};

enum { WORKERS_MAX = 64 };

enum sandbox { SANDBOX_ON, SANDBOX_OFF };

struct conf {
    int64_t workers;
    char *socket_dir;
    char *socket_group; /* name or number; NULL: the group of the process */
    int sandbox;        /* enum sandbox */
    char *user;         /* of workers and status server if root starts the program: name or number */
    char *providers_dir;
    struct list upstreams; /* of struct conf_upstream */
    struct list routes;    /* of struct conf_route */
    struct conf_redis redis;
    struct conf_cache cache;
    struct conf_limits limits;
    struct conf_access access;
    int64_t nginx_cache_ms; /* how long nginx may repeat an answer; 0: not at all */
    int64_t drain_ms;       /* how long a worker that is stopping may finish its requests */
    int64_t hung_after_ms;  /* a worker whose loop is blocked for longer is replaced */
    int log_level;          /* enum log_level */
    int log_format;         /* enum log_format */
    bool audit;             /* log who claims, reads and is refused tasks */

    struct files *files;                /* all files that were read */
    struct schema_source source;        /* (ref) the configuration file itself, and these files */
    struct list providers;              /* of struct provider *, each once */
    const struct provider_proxy *proxy; /* (ref) of all routes that have one; NULL: none has */
    struct teams teams;                 /* empty: there are none */
};

extern const struct table conf_table; /* of the file, for the manual */

/* Reads the file and all files that it names. `files` is an empty set, or the one from the master; the
 * configuration takes ownership. NULL with *ret_error (allocated), which names file, line and key. */
struct conf *conf_load(const char *path, struct files *files, char **ret_error);
void conf_free(struct conf *conf); /* NULL is allowed */

/* Reads only "socket_dir" from the file, which must be valid JSON; other keys are not checked. The caller frees
 * the path. NULL with *ret_error, as above. */
char *conf_socket_dir(const char *path, char **ret_error);

/* The configuration of `in_force`, the files of a loaded one, with its live and secret files as they are on the
 * disk now; never NULL. Each file is judged on its own: one that cannot be used keeps its content, and the
 * configuration's `files` have the reason. Its plain files are not read again. */
struct conf *conf_renew(const char *path, const struct files *in_force);

/* Wipes the secrets that a worker does not use: the files' content, and the keys of upstreams without a route. */
void conf_wipe_unused(struct conf *conf);

/* Reads every file of providers_dir, even if no route names it; an error (allocated), or NULL. */
char *conf_check_providers(const struct conf *conf);

/* The message (allocated) of an error that only the process which uses the configuration can detect, in the
 * form of load errors: "FILE:LINE: /pointer: reason". The formatted text is "/pointer: reason". */
#define conf_error(conf, ...) schema_error(&(conf)->source, __VA_ARGS__)

/* The configuration with all defaults; of secrets, only the file names. */
void conf_print(const struct conf *conf, struct buf *out);

static inline const struct conf_route *conf_route(const struct conf *conf, size_t i)
{
    return (const struct conf_route *)conf->routes.items + i;
}

static inline const struct secret *conf_keys(const struct conf_upstream *upstream)
{
    return upstream->keys.items;
}

/* The name of a key in messages: its file's name. */
static inline const char *conf_key_name(const struct conf_upstream *upstream, size_t i)
{
    return conf_keys(upstream)[i].path;
}

/* The account at the upstream: identities of tasks are unique within it. */
static inline const char *conf_account(const struct conf_upstream *upstream)
{
    return upstream->account ? upstream->account : upstream->name;
}

static inline const struct conf_upstream *conf_upstream(const struct conf *conf, size_t i)
{
    return (const struct conf_upstream *)conf->upstreams.items + i;
}

#endif
