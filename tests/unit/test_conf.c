/* The configuration: defaults, referenced files, and the exact message for each error. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "config/conf.h"
#include "given.h"

#define UPSTREAM(members) "\"upstreams\":{\"main\":{" members "}}"
#define KEY               "\"key_files\":[\"key\"]"
#define URL               "\"base_url\":\"https://api.example.com\""
#define GOOD_UPSTREAM     UPSTREAM(URL "," KEY)
#define GOOD_ROUTES       "\"routes\":[{\"provider\":\"p\",\"upstream\":\"main\"}]"
#define GOOD              GOOD_UPSTREAM "," GOOD_ROUTES

#define PROVIDER(name, auth)                                                                                 \
    "{\"name\":\"" name "\",\"path\":\"/" name                                                               \
    "/{task_id}\",\"task_id\":\"[a-z]+\",\"auth\":{\"header\":\"A\","                                        \
    "\"value\":\"" auth "\"},\"status\":{\"at\":\"/s\"},\"keep\":[\"/s\"]"

#define PROXY(path) ",\"proxy\":{\"path\":\"" path "\",\"header\":\"h\",\"origin\":\"https://a\"}"

static struct conf *load_text(const char *text, char **ret_error)
{
    const struct given given[] = {
        {"/etc/x/t.json", text, 0},
        {"/etc/x/key", "sk-12345678\n", 0},
        {"/etc/x/pair", "access:secret\r\n", 0},
        {"/etc/x/half", "access-key:\n", 0},
        {"/etc/x/hook", "0123456789abcdef0123456789abcdef\n", 0},
        {"/etc/x/short", "sk-1\n", 0},
        {"/etc/x/empty", "\n", 0},
        {"/etc/x/two-lines", "sk-12345678\nsk-87654321\n", 0},
        {"/etc/x/blank", "sk 12345678\n", 0},
        {"/etc/x/utf8", "sk-1234567\xc3\xa9\n", 0},
        {"/etc/x/nul", "sk-1234\0005678\n", 13},
        {"/etc/x/password", "12345678", 0},
        {"/etc/x/ca", "no certificate", 0},
        {"/etc/x/teams", "{\"web\":{\"token_sha256\":[],\"providers\":[\"p\"]}}", 0},
        {"/etc/x/bad-teams", "{\"web\":{\"token_sha256\":[],\n\"providers\":[\"q\"]}}", 0},
        {"/etc/x/providers/p.json", PROVIDER("p", "{key}") ",\"identity\":\"/id\"}", 0},
        {"/etc/x/providers/q.json", PROVIDER("q", "{jwt}") "}", 0},
        {"/etc/x/providers/r.json", PROVIDER("r", "{key-or-jwt}") "}", 0},
        {"/etc/x/providers/h.json",
         "{\"name\":\"h\",\"path\":\"/h/{task_id}/"
         "{kind}\",\"task_id\":\"[a-z]+\",\"variables\":{\"kind\":\"[a-z]+\"},"
         "\"hook\":\"/id\",\"auth\":{\"header\":\"A\",\"value\":\"{key}\"},\"status\":{\"at\":\"/"
         "s\"},\"keep\":[\"/s\"]}",
         0},
        {"/etc/x/providers/one.json", PROVIDER("one", "{key}") PROXY("/one") "}", 0},
        {"/etc/x/providers/other.json", PROVIDER("other", "{key}") PROXY("/other") "}", 0},
        {"/etc/x/providers/bad.json", "{\n\"name\":5}", 0},
    };
    *ret_error = NULL;
    return conf_load("/etc/x/t.json", given_files(given, NELEMS(given)), ret_error);
}

static struct conf *load_good(const char *text)
{
    char *error;
    struct conf *conf = load_text(text, &error);
    if (conf == NULL)
        fail_msg("%s", error);
    assert_null(error);
    return conf;
}

TEST(minimal_configuration_has_the_documented_defaults)
{
    struct conf *conf = load_good("{" GOOD "}");
    assert_in_range(conf->workers, 1, 64);
    assert_string_equal(conf->socket_dir, "/run/taskproxy");
    assert_string_equal(conf->socket_group, "www-data");
    assert_string_equal(conf->user, "www-data");
    assert_string_equal(conf->providers_dir, "/etc/x/providers");
    assert_null(conf->redis.address);
    assert_int_equal(conf->cache.memory, 64 << 20);
    assert_int_equal(conf->cache.terminal_ttl_ms, 86400000);
    assert_int_equal(conf->cache.missing_ttl_ms, 5000);
    assert_int_equal(conf->cache.stale_for_ms, 600000);
    assert_int_equal(conf->limits.waiters, 20000);
    assert_int_equal(conf->limits.fetches, 4096);
    assert_int_equal(conf->access.mode, ACCESS_OPEN);
    assert_int_equal(conf->log_level, LOG_INFO);
    const struct conf_upstream *upstream = conf_upstream(conf, 0);
    assert_string_equal(upstream->name, "main");
    assert_int_equal(upstream->connect_timeout_ms, 3000);
    assert_int_equal(upstream->timeout_ms, 10000);
    assert_int_equal(upstream->max_in_flight, 64);
    assert_int_equal(upstream->max_body, 4 << 20);
    assert_null(upstream->ca);
    conf_free(conf);
    conf_free(NULL);
}

TEST(referenced_files_are_read)
{
    struct conf *conf = load_good(
        "{" GOOD ",\"redis\":{\"address\":\"unix:/run/redis.sock\",\"password_file\":\"password\"}}");
    assert_string_equal(conf_keys(conf_upstream(conf, 0))[0].text, "sk-12345678");
    assert_string_equal(conf->redis.password.text, "12345678");
    assert_string_equal(conf->redis.socket, "/run/redis.sock");
    assert_string_equal(conf_route(conf, 0)->provider->name, "p");
    assert_ptr_equal(conf_route(conf, 0)->upstream, conf_upstream(conf, 0));
    assert_string_equal(conf_route(conf, 0)->path.text, "/p/{task_id}");
    conf_free(conf);
}

TEST(teams_file_is_read)
{
    struct conf *conf = load_good("{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:6379\"},"
                                  "\"access\":{\"mode\":\"nginx\",\"teams_file\":\"teams\","
                                  "\"ownership\":\"first-reader\"}}");
    assert_int_equal(conf->access.mode, ACCESS_NGINX);
    assert_int_equal(conf->access.ownership, OWNERSHIP_FIRST_READER);
    assert_non_null(teams_by_name(&conf->teams, "web"));
    conf_free(conf);
}

TEST(upstream_may_have_several_keys)
{
    struct conf *conf = load_good("{" UPSTREAM(URL ",\"key_files\":[\"key\",\"pair\"]") "," GOOD_ROUTES "}");
    const struct conf_upstream *upstream = conf_upstream(conf, 0);
    assert_int_equal(upstream->keys.n, 2);
    assert_string_equal(conf_keys(upstream)[1].text, "access:secret");
    assert_string_equal(conf_key_name(upstream, 1), "/etc/x/pair");
    conf_free(conf);
}

TEST(signing_key_has_two_halves)
{
    struct conf *conf =
        load_good("{" UPSTREAM(URL ",\"key_files\":[\"pair\"]") ",\"routes\":[{\"provider\":\"q\","
                                                                "\"upstream\":\"main\"}]}");
    assert_string_equal(conf_keys(conf_upstream(conf, 0))[0].text, "access:secret");
    conf_free(conf);
}

TEST(keys_of_both_kinds_may_share_a_pool)
{
    struct conf *conf =
        load_good("{" UPSTREAM(URL ",\"key_files\":[\"key\",\"pair\"]") ",\"routes\":[{\"provider\":\"r\","
                                                                        "\"upstream\":\"main\"}]}");
    assert_int_equal(conf_upstream(conf, 0)->keys.n, 2);
    conf_free(conf);
}

TEST(two_routes_may_serve_one_provider_on_different_paths)
{
    struct conf *conf =
        load_good("{" GOOD_UPSTREAM ",\"routes\":[{\"provider\":\"p\",\"upstream\":\"main\"},"
                  "{\"provider\":\"p\",\"upstream\":\"main\",\"path\":\"/other?id={task_id}\"}]}");
    assert_int_equal(conf->providers.n, 1);
    assert_ptr_equal(conf_route(conf, 0)->provider, conf_route(conf, 1)->provider);
    assert_string_equal(conf_route(conf, 1)->path.text, "/other?id={task_id}");
    assert_string_equal(conf_route(conf, 1)->upstream_path.text,
                        conf->providers.n ? conf_route(conf, 0)->path.text : "");
    conf_free(conf);
}

TEST(socket_group_may_be_null)
{
    struct conf *conf = load_good("{" GOOD ",\"socket_group\":null}");
    assert_null(conf->socket_group);
    conf_free(conf);
}

TEST(redis_addresses_are_parsed)
{
    static const struct {
        const char *address, *host;
        int port;
    } good[] = {{"127.0.0.1:6379", "127.0.0.1", 6379},
                {"127.1.2.3:1", "127.1.2.3", 1},
                {"[::1]:65535", "::1", 65535}};
    for (size_t i = 0; i < NELEMS(good); i++) {
        char *text = xasprintf("{%s,\"redis\":{\"address\":\"%s\"}}", GOOD, good[i].address);
        struct conf *conf = load_good(text);
        assert_string_equal(conf->redis.endpoints[0].host, good[i].host);
        assert_int_equal(conf->redis.endpoints[0].port, good[i].port);
        conf_free(conf);
        free(text);
    }
}

TEST(redis_on_another_host_requires_plaintext)
{
    static const char *const addresses[] = {"10.1.2.3:6379", "[fd00::1]:6379", "0.0.0.0:6379"};
    for (size_t i = 0; i < NELEMS(addresses); i++) {
        char *error,
            *silent = xasprintf("{%s,\"redis\":{\"address\":\"%s\"}}", GOOD, addresses[i]),
            *said = xasprintf("{%s,\"redis\":{\"address\":\"%s\",\"plaintext\":true}}", GOOD, addresses[i]);
        if (load_text(silent, &error) != NULL || strstr(error, "\"plaintext\": true") == NULL)
            fail_msg("%s", silent);
        struct conf *conf = load_good(said);
        assert_true(conf->redis.plaintext);
        conf_free(conf);
        free(error);
        free(silent);
        free(said);
    }
}

static void assert_error(const char *text, const char *expected)
{
    char *error;
    struct conf *conf = load_text(text, &error);
    if (conf != NULL)
        fail_msg("taken: %s", text);
    assert_string_equal(error, expected);
    free(error);
}

TEST(nginx_cache_has_bounds_and_does_not_know_teams_of_nginx)
{
    static const char *const good[] = {"0s", "1s", "1500ms", "10s"}, *const bad[] = {"999ms", "11s",
                                                                                     "10001ms"};
    struct conf *conf = load_good("{" GOOD "}");
    assert_int_equal(conf->nginx_cache_ms, 0);
    conf_free(conf);
    for (size_t i = 0; i < NELEMS(good) + NELEMS(bad); i++) {
        char *error, *text = xasprintf("{%s,\"nginx_cache\":\"%s\"}", GOOD,
                                       i < NELEMS(good) ? good[i] : bad[i - NELEMS(good)]);
        conf = load_text(text, &error);
        assert_int_equal(conf != NULL, i < NELEMS(good));
        conf_free(conf);
        free(error);
        free(text);
    }
    assert_error(
        "{" GOOD ",\"access\":{\"mode\":\"nginx\",\"teams_file\":\"teams\"},\n\"nginx_cache\":\"2s\"}",
        "/etc/x/t.json:2: /nginx_cache: is not possible in the mode \"nginx\": the cache would not know "
        "the teams");
}

TEST(malformed_redis_addresses_are_refused)
{
    static const char *const bad[] = {"localhost:6379",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:0",
                                      "127.0.0.1:65536",
                                      ":6379",
                                      "::1:6379",
                                      "[::1]",
                                      "[]:1",
                                      "[127.0.0.1]:1",
                                      "unix:",
                                      "unix:redis.sock",
                                      "redis://127.0.0.1:6379",
                                      "127.0.0.1:6379/0",
                                      "127.0.0.1:-1",
                                      " 127.0.0.1:6379"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *text = xasprintf("{%s,\"redis\":{\"address\":\"%s\"}}", GOOD, bad[i]);
        assert_error(text, "/etc/x/t.json:1: /redis/address: must be IP:PORT or unix:PATH; host names are "
                           "not supported, because "
                           "resolving them would block");
        free(text);
    }
}

#define AT(pointer) "/etc/x/t.json:1: " pointer ": "

TEST(malformed_or_plaintext_base_urls_are_refused)
{
    static const char form[] =
        AT("/upstreams/main/base_url") "must be a scheme, a host and optionally a port, "
                                       "such as \"https://api.example.com\"";
    static const char scheme[] =
        AT("/upstreams/main/base_url") "must begin with https:// (or http:// for a loopback address)";
    static const char clear[] =
        AT("/upstreams/main/base_url") "http:// would send the key unencrypted; it is "
                                       "allowed for loopback addresses only";
    static const char port[] = AT("/upstreams/main/base_url") "has an invalid port";
    static const struct {
        const char *url, *error;
    } bad[] = {{"", scheme},
               {"api.example.com", scheme},
               {"ftp://api.example.com", scheme},
               {"HTTPS://api.example.com", scheme},
               {"//api.example.com", scheme},
               {"https://", form},
               {"https://api.example.com/", form},
               {"https://api.example.com/v1", form},
               {"https://api.example.com?x", form},
               {"https://api.example.com#x", form},
               {"https://user:pw@api.example.com", form},
               {"https://user@api.example.com", form},
               {"https://:443", form},
               {"https://a b", form},
               {"https://a\\\\b", form},
               {"https://a;b", form},
               {"https://a$b", form},
               {"https://[::1", form},
               {"https://[::1]x", form},
               {"https://x:", port},
               {"https://x:0", port},
               {"https://x:65536", port},
               {"https://x:https", port},
               {"https://x:443:443", port},
               {"http://api.example.com", clear},
               {"http://10.0.0.1", clear},
               {"http://localhost.example.com", clear},
               {"http://127.0.0.1.example.com", clear},
               {"http://1270.0.0.1", clear},
               {"http://[::2]", clear},
               {"http://0.0.0.0", clear},
               {"http://127.1", clear},
               {"http://2130706433", clear}};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *text =
            xasprintf("{\"upstreams\":{\"main\":{\"base_url\":\"%s\",%s}},%s}", bad[i].url, KEY, GOOD_ROUTES);
        assert_error(text, bad[i].error);
        free(text);
    }
}

TEST(plaintext_is_allowed_to_loopback)
{
    static const char *const good[] = {"http://127.0.0.1",       "http://127.0.0.1:8080",
                                       "http://127.255.255.254", "http://localhost:1",
                                       "http://[::1]:8080",      "https://[2001:db8::1]:8443"};
    for (size_t i = 0; i < NELEMS(good); i++) {
        char *text =
            xasprintf("{\"upstreams\":{\"main\":{\"base_url\":\"%s\",%s}},%s}", good[i], KEY, GOOD_ROUTES);
        conf_free(load_good(text));
        free(text);
    }
}

#define OWNED            "\"access\":{\"mode\":\"teams\",\"teams_file\":\"teams\",\"ownership\":\"first-reader\"}"
#define GOOD_REDIS       "\"redis\":{\"address\":\"127.0.0.1:6379\"}"
#define WITHOUT_IDENTITY "\"routes\":[{\"provider\":\"q\",\"upstream\":\"main\"}]"
#define TWO_UPSTREAMS(members)                                                                               \
    "\"upstreams\":{\"main\":{" URL "," KEY "},\"spare\":{" URL ",\"key_files\":[\"pair\",\"key\"]" members  \
    "}}"

TEST(upstreams_with_a_common_key_may_name_their_account)
{
    struct conf *conf =
        load_good("{" TWO_UPSTREAMS(",\"account\":\"main\"") "," GOOD_ROUTES "," GOOD_REDIS "," OWNED "}");
    assert_string_equal(conf_account(conf_upstream(conf, 0)), "main");
    assert_string_equal(conf_account(conf_upstream(conf, 1)), "main");
    conf_free(conf);
    conf_free(load_good("{" TWO_UPSTREAMS("") "," GOOD_ROUTES "}"));
}

TEST(every_error_has_its_exact_message)
{
#define WITH_KEY(file)      "{" UPSTREAM(URL ",\"key_files\":[\"" file "\"]") "," GOOD_ROUTES "}"
#define WITH_ROUTES(routes) "{" GOOD_UPSTREAM ",\"routes\":[" routes "]}"
#define ROUTE(members)      "{\"provider\":\"p\",\"upstream\":\"main\"" members "}"
#define TLS(members)        "\"address\":\"10.0.0.1:1\",\"tls\":{\"ca_file\":\"ca\"" members "}"
#define OR_NO_TLS(error)                                                                                     \
    HAVE_HIREDIS_SSL ? error                                                                                 \
                     : AT("/redis/tls") "this build's hiredis library has no TLS (Debian 13 has it); "       \
                                        "instead, set \"address\" to a local stunnel, or to a stream "       \
                                        "proxy of nginx with proxy_ssl, that connects to Redis"
    static const struct {
        const char *text, *error;
    } mistakes[] = {
        {"", "/etc/x/t.json:1: unexpected end of file"},
        {"nonsense", "/etc/x/t.json:1: not a JSON value"},
        {"{}", "/etc/x/t.json:1: the key \"upstreams\" is missing"},
        {"{" GOOD_UPSTREAM "}", "/etc/x/t.json:1: the key \"routes\" is missing"},
        {"{" GOOD ",\"worker\":2}", AT("/worker") "unknown key; did you mean \"workers\"?"},
        {"{" GOOD ",\"workers\":65}", AT("/workers") "must be from 0 to 64"},
        {"{" GOOD ",\"workers\":\"2\"}", AT("/workers") "must be a whole number"},
        {"{" GOOD ",\"log_level\":\"loud\"}",
         AT("/log_level") "must be one of \"debug\", \"info\", \"warn\", \"error\""},
        {"{" GOOD ",\"access\":{\"mode\":\"teams\"}}", AT("/access/mode") "\"teams\" needs a teams_file"},
        {"{" GOOD ",\"access\":{\"mode\":\"nginx\"}}", AT("/access/mode") "\"nginx\" needs a teams_file"},
        {"{" GOOD ",\"access\":{\"ownership\":\"first-reader\"}}",
         AT("/access/ownership") "needs the mode \"teams\" or \"nginx\""},
        {"{" GOOD "," OWNED "}",
         AT("/access/ownership") "needs \"redis\", where all workers store the owners of tasks"},
        {"{" UPSTREAM(URL ",\"key_files\":[\"pair\"]") "," WITHOUT_IDENTITY "," GOOD_REDIS "," OWNED "}",
         AT("/routes/0/provider") "its file has no \"identity\", which \"ownership\" needs"},
        {"{" TWO_UPSTREAMS("") "," GOOD_ROUTES "," GOOD_REDIS "," OWNED "}",
         AT("/upstreams/spare/account") "must be \"main\" for \"ownership\": upstream \"main\" has the same "
                                        "key"},
        {"{" GOOD ",\"audit\":true}", AT("/audit") "needs \"ownership\""},
        {"{" GOOD ",\"access\":{\"mode\":\"teams\",\"teams_file\":\"none\"}}",
         AT("/access/teams_file") "\"/etc/x/none\" was not passed to this worker"},
        {"{" GOOD ",\"access\":{\"mode\":\"teams\",\"teams_file\":\"bad-teams\"}}",
         "/etc/x/bad-teams:2: /web/providers/0: no route has this provider; configured providers: \"p\""},
        {"{" GOOD ",\"access\":{\"mode\":\"closed\"}}",
         AT("/access/mode") "must be one of \"open\", \"teams\", \"nginx\""},
        {"{" GOOD ",\"cache\":{\"memory\":\"1KiB\"}}",
         AT("/cache/memory") "must be from \"1MiB\" to \"1024GiB\""},
        {"{" GOOD ",\"cache\":{\"terminal_ttl\":\"0s\"}}",
         AT("/cache/terminal_ttl") "must be from \"1s\" to \"365d\""},
        {"{" GOOD ",\"limits\":{\"waiters\":0}}", AT("/limits/waiters") "must be from 1 to 1000000"},
        {"{" GOOD ",\"redis\":{}}", AT("/redis") "needs \"address\", or \"sentinels\" and \"master_name\""},
        {"{" GOOD ",\"redis\":{\"sentinels\":[\"127.0.0.1:1\"]}}",
         AT("/redis/sentinels") "need a master_name"},
        {"{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:1\",\"master_name\":\"m\"}}",
         AT("/redis/address") "cannot be combined with sentinels or master_name"},
        {"{" GOOD ",\"redis\":{\"sentinels\":[\"127.0.0.1:1\",\"unix:/s\"],\"master_name\":\"m\"}}",
         AT("/redis/sentinels/1") "must be IP:PORT; host names are not supported, because resolving them "
                                  "would block"},
        {"{" GOOD ",\"redis\":{\"sentinels\":[\"10.0.0.1:1\"],\"master_name\":\"m\"}}",
         AT("/redis/sentinels/0") "the connection to another host would not be encrypted; configure "
                                  "\"tls\", or, if the network between the hosts is trusted, set "
                                  "\"plaintext\": true"},
        {"{" GOOD ",\"redis\":{\"cluster\":true,\"master_name\":\"m\",\"sentinels\":[\"127.0.0.1:1\"]}}",
         AT("/redis/cluster") "cannot be combined with sentinels; needs \"address\", the IP:PORT of any "
                              "node"},
        {"{" GOOD ",\"redis\":{\"cluster\":1,\"address\":\"127.0.0.1:1\"}}",
         AT("/redis/cluster") "must be true or false"},
        {"{" GOOD ",\"redis\":{\"cluster\":true,\"address\":\"unix:/s\"}}",
         AT("/redis/address") "must be IP:PORT; host names are not supported, because resolving them would "
                              "block"},
        {"{" GOOD ",\"redis\":{\"cluster\":true,\"address\":\"127.0.0.1:1\",\"database\":1}}",
         AT("/redis/database") "must be 0, because a Redis Cluster has no other database"},
        {"{" GOOD ",\"redis\":{\"cluster\":true,\"address\":\"127.0.0.1:1\",\"prefix\":\"{t}:\"}}",
         AT("/redis/prefix") "must not contain \"{\" or \"}\", which in a Redis Cluster choose the node that "
                             "has the key"},
        {"{" GOOD ",\"redis\":{\"address\":\"unix:/s\",\"tls\":{\"ca_file\":\"ca\"}}}",
         AT("/redis/tls") "is for IP:PORT, not for a UNIX socket"},
        {"{" GOOD ",\"redis\":{" TLS(",\"server_name\":\"a b\"") "}}",
         AT("/redis/tls/server_name") "must be a host name or an IP address, as in the server's certificate"},
        {"{" GOOD ",\"redis\":{" TLS(",\"cert_file\":\"ca\"") "}}",
         OR_NO_TLS(AT("/redis/tls") "cert_file and key_file need each other")},
        {"{" GOOD ",\"redis\":{" TLS("") "}}",
         OR_NO_TLS(AT("/redis/tls/ca_file") "\"/etc/x/ca\" contains no certificate")},
        {"{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:1\",\"timeout\":50}}",
         AT("/redis/timeout") "must be a duration: a number and ms, s, m, h or d, such as \"250ms\""},
        {"{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:1\",\"plaintext\":1}}",
         AT("/redis/plaintext") "must be true or false"},
        {"{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:1\",\"username\":\"u\"}}",
         AT("/redis/username") "needs a password_file"},
        {"{" GOOD ",\"redis\":{\"address\":\"127.0.0.1:1\",\"password_file\":\"nowhere\"}}",
         AT("/redis/password_file") "\"/etc/x/nowhere\" was not passed to this worker"},
        {"{" GOOD ",\"socket_dir\":\"/"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
         AT("/socket_dir") "is too long for the path of a UNIX socket"},
        {"{\"upstreams\":{}," GOOD_ROUTES "}", AT("/upstreams") "must have 1 to 4096 members"},
        {"{\"upstreams\":{\"a/b\":{}}," GOOD_ROUTES "}",
         AT("/upstreams/a/b") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {"{" UPSTREAM(URL) "," GOOD_ROUTES "}", AT("/upstreams/main") "the key \"key_files\" is missing"},
        {"{" UPSTREAM(KEY) "," GOOD_ROUTES "}", AT("/upstreams/main") "the key \"base_url\" is missing"},
        {"{" UPSTREAM(URL ",\"key_files\":[]") "," GOOD_ROUTES "}",
         AT("/upstreams/main/key_files") "must have 1 to 64 members"},
        {"{" UPSTREAM(URL "," KEY ",\"max_body\":\"1GiB\"") "," GOOD_ROUTES "}",
         AT("/upstreams/main/max_body") "must be from \"1KiB\" to \"64MiB\""},
        {"{" UPSTREAM(URL "," KEY ",\"ca_file\":\"nowhere\"") "," GOOD_ROUTES "}",
         AT("/upstreams/main/ca_file") "\"/etc/x/nowhere\" was not passed to this worker"},
        {"{" UPSTREAM(URL "," KEY ",\"ca_file\":\"ca\"") "," GOOD_ROUTES "}",
         AT("/upstreams/main/ca_file") "\"/etc/x/ca\" contains no certificate"},
        {WITH_KEY("nowhere"),
         AT("/upstreams/main/key_files/0") "\"/etc/x/nowhere\" was not passed to this worker"},
        {WITH_KEY("short"),
         AT("/upstreams/main/key_files/0") "\"/etc/x/short\" must contain at least 8 characters"},
        {WITH_KEY("empty"),
         AT("/upstreams/main/key_files/0") "\"/etc/x/empty\" must contain at least 8 characters"},
        {WITH_KEY("two-lines"),
         AT("/upstreams/main/key_files/0") "\"/etc/x/two-lines\" must contain one line "
                                           "of visible ASCII characters"},
        {WITH_KEY("blank"), AT("/upstreams/main/key_files/0") "\"/etc/x/blank\" must contain one line of "
                                                              "visible ASCII characters"},
        {WITH_KEY("utf8"), AT("/upstreams/main/key_files/0") "\"/etc/x/utf8\" must contain one line of "
                                                             "visible ASCII characters"},
        {WITH_KEY("nul"), AT("/upstreams/main/key_files/0") "\"/etc/x/nul\" must contain one line of visible "
                                                            "ASCII characters"},
        {WITH_KEY("key\",\"short"),
         AT("/upstreams/main/key_files/1") "\"/etc/x/short\" must contain at least 8 characters"},
        {WITH_ROUTES(""), AT("/routes") "must have 1 to 4096 members"},
        {WITH_ROUTES("{\"provider\":\"p\"}"), AT("/routes/0") "the key \"upstream\" is missing"},
        {WITH_ROUTES("{\"provider\":\"p\",\"upstream\":\"other\"}"),
         AT("/routes/0/upstream") "no upstream has this name"},
        {WITH_ROUTES("{\"provider\":\"../p\",\"upstream\":\"main\"}"),
         AT("/routes/0/provider") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {WITH_ROUTES("{\"provider\":\".p\",\"upstream\":\"main\"}"),
         AT("/routes/0/provider") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {WITH_ROUTES("{\"provider\":\"bad\",\"upstream\":\"main\"}"),
         "/etc/x/providers/bad.json:2: /name: must be a string, not int"},
        {WITH_ROUTES("{\"provider\":\"q\",\"upstream\":\"main\"}"),
         AT("/routes/0/upstream") "this provider's tokens are signed: each key file must contain "
                                  "ACCESS_KEY:SECRET_KEY, at "
                                  "most 256 characters each"},
        {"{" UPSTREAM(
             URL
             ",\"key_files\":[\"key\",\"half\"]") ",\"routes\":[{\"provider\":\"r\",\"upstream\":\"main\"}]}",
         AT("/routes/0/upstream") "this provider's tokens are signed: each key file must contain a key "
                                  "without a "
                                  "colon, or ACCESS_KEY:SECRET_KEY, at most 256 characters each"},
        {WITH_ROUTES(ROUTE(",\"hook_secret_file\":\"hook\"")),
         AT("/routes/0/hook_secret_file") "the provider's file has no \"hook\""},
        {WITH_ROUTES("{\"provider\":\"h\",\"upstream\":\"main\",\"hook_secret_file\":\"hook\"}"),
         AT("/routes/0/hook_secret_file") "the last variable of the path must be {task_id}"},
        {WITH_ROUTES(ROUTE(",\"path\":\"x\"")), AT("/routes/0/path") "must begin with '/'"},
        {WITH_ROUTES(ROUTE(",\"path\":\"/x/{other}\"")),
         AT("/routes/0/path") "names a variable that is neither \"task_id\" nor in \"variables\""},
        {WITH_ROUTES(ROUTE(",\"upstream_path\":\"/x\"")),
         AT("/routes/0/upstream_path") "contains no variable"},
        {WITH_ROUTES(ROUTE("") "," ROUTE("")),
         AT("/routes/1/provider") "another route has the same path: give one of them a \"path\""},
        {WITH_ROUTES("{\"provider\":\"one\",\"upstream\":\"main\"},"
                     "{\"provider\":\"other\",\"upstream\":\"main\",\"path\":\"/y/{task_id}\"}"),
         AT("/routes/1/provider") "its \"proxy\" differs from that of another route"},
        {"{\n" GOOD ",\n\"routes\":[]}", "/etc/x/t.json:3: a duplicate key"},
    };
    for (size_t i = 0; i < NELEMS(mistakes); i++)
        assert_error(mistakes[i].text, mistakes[i].error);
}

TEST(missing_file_is_named)
{
    char *error = NULL;
    assert_null(conf_load("/nowhere/t.json", given_files(NULL, 0), &error));
    assert_string_equal(error, "/nowhere/t.json: was not passed to this worker");
    free(error);
}

static char *printed(const struct conf *conf)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    conf_print(conf, &out);
    assert_false(out.failed);
    return out.data;
}

static void assert_prints_the_same_again(const char *text)
{
    struct conf *first = load_good(text);
    char *once = printed(first);
    struct conf *second = load_good(once);
    char *twice = printed(second);
    assert_string_equal(once, twice);
    assert_null(strstr(once, "sk-12345678"));
    assert_null(strstr(once, "12345678\""));
    conf_free(first);
    conf_free(second);
    free(once);
    free(twice);
}

TEST(printed_configuration_can_be_reread_and_has_no_secret)
{
    assert_prints_the_same_again("{" GOOD
                                 ",\"redis\":{\"address\":\"127.0.0.1:6379\",\"password_file\":\"password\"},"
                                 "\"workers\":3}");
    assert_prints_the_same_again("{" GOOD "}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimal_configuration_has_the_documented_defaults),
        cmocka_unit_test(referenced_files_are_read),
        cmocka_unit_test(teams_file_is_read),
        cmocka_unit_test(upstream_may_have_several_keys),
        cmocka_unit_test(signing_key_has_two_halves),
        cmocka_unit_test(keys_of_both_kinds_may_share_a_pool),
        cmocka_unit_test(two_routes_may_serve_one_provider_on_different_paths),
        cmocka_unit_test(socket_group_may_be_null),
        cmocka_unit_test(nginx_cache_has_bounds_and_does_not_know_teams_of_nginx),
        cmocka_unit_test(redis_addresses_are_parsed),
        cmocka_unit_test(malformed_redis_addresses_are_refused),
        cmocka_unit_test(redis_on_another_host_requires_plaintext),
        cmocka_unit_test(malformed_or_plaintext_base_urls_are_refused),
        cmocka_unit_test(plaintext_is_allowed_to_loopback),
        cmocka_unit_test(upstreams_with_a_common_key_may_name_their_account),
        cmocka_unit_test(every_error_has_its_exact_message),
        cmocka_unit_test(missing_file_is_named),
        cmocka_unit_test(printed_configuration_can_be_reread_and_has_no_secret),
    };
    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
