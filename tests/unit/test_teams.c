/* The teams file: valid contents, the message of each error, and lookups by token and origin. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "config/teams.h"
#include "given.h"

#define TOKEN_A "tp-alpha"
#define TOKEN_B "tp-bravo"
#define TOKEN_C "tp-charlie"
#define FILE_A  "/x/secrets/links"
#define WEB     "{\"web\": {\"token_sha256\": [], \"providers\": [\"sora\"]"

static char digests[3][65];
static struct provider sora = {.name = (char *)"sora"}, kling = {.name = (char *)"kling"};
static struct provider *served[] = {&sora, &kling};
static const struct list providers = {.items = served, .n = NELEMS(served)};

static int make_digests(void **unused __attribute__((unused)))
{
    static const char *const tokens[] = {TOKEN_A, TOKEN_B, TOKEN_C};
    for (size_t i = 0; i < NELEMS(tokens); i++) {
        unsigned char digest[32];
        sha256(tokens[i], strlen(tokens[i]), digest);
        hex_encode(digest, sizeof(digest), digests[i]);
    }
    return 0;
}

static char *load(const char *text, struct teams *out)
{
    const struct given given[] = {{"/x/teams.json", text, 0},
                                  {FILE_A, "0123456789abcdef0123456789abcdef\n", 0},
                                  {"/x/secrets/old", "fedcba9876543210fedcba9876543210", 0},
                                  {"/x/secrets/short", "0123456789abcdef", 0},
                                  {"/x/secrets/lines", "0123456789abcdef\n0123456789abcdef\n", 0}};
    struct files *files = given_files(given, NELEMS(given));
    char *why;
    const struct file *file = files_get(files, "/x/teams.json", FILE_PLAIN, TEAMS_FILE_MAX, &why);
    *out = (struct teams){0};
    char *error = teams_load(files, file, &providers, out);
    files_free(files);
    return error;
}

static struct teams load_good(const char *text)
{
    struct teams teams;
    char *error = load(text, &teams);
    if (error != NULL)
        fail_msg("%s", error);
    return teams;
}

static void assert_refused(const char *text, const char *expected)
{
    struct teams teams;
    char *error = load(text, &teams);
    assert_non_null(error);
    if (strcmp(error, expected) != 0)
        fail_msg("\n%s\ninstead of\n%s", error, expected);
    free(error);
    teams_done(&teams);
}

/* Two teams; the first has two tokens. */
static struct teams two_teams(void)
{
    char *text =
        xasprintf("{ // those who build the site\n"
                  "  \"web\": {\"token_sha256\": [\"%s\", \"%s\"], \"providers\": [\"sora\"],\n"
                  "            \"origins\": [\"https://app.example.com\", \"http://localhost:3000\"]},\n"
                  "  \"film\": {\"token_sha256\": [\"%s\"], \"providers\": [\"sora\", \"kling\"],\n"
                  "             \"origins\": [\"https://film.example.com\"]}\n}",
                  digests[0], digests[1], digests[2]);
    struct teams teams = load_good(text);
    free(text);
    return teams;
}

TEST(all_keys_of_a_team_are_read)
{
    struct teams teams =
        load_good(WEB ", \"link_secret_file\": \"secrets/links\", \"old_link_secret_file\": \"secrets/old\","
                      " \"link_secrets\": {\"2026-01\": \"secrets/old\", \"b_2\": \"secrets/links\"},"
                      " \"queries_per_minute\": 600, \"watchers\": 2000}}");
    const struct team *web = teams_by_name(&teams, "web");
    assert_string_equal(web->plain_link_secrets[0].path, FILE_A);
    assert_string_equal(web->plain_link_secrets[0].text, "0123456789abcdef0123456789abcdef");
    assert_string_equal(web->plain_link_secrets[1].text, "fedcba9876543210fedcba9876543210");
    assert_int_equal(web->link_secrets.n, 2);
    assert_string_equal(team_link_secrets(web)[0].name, "2026-01");
    assert_string_equal(team_link_secrets(web)[0].secret.text, "fedcba9876543210fedcba9876543210");
    assert_string_equal(team_link_secrets(web)[1].name, "b_2");
    assert_int_equal(web->queries_per_minute, 600);
    assert_int_equal(web->watchers, 2000);
    teams_done(&teams);
}

TEST(omitted_limits_are_unlimited)
{
    struct teams teams = load_good(WEB "}}");
    const struct team *web = teams_by_name(&teams, "web");
    assert_null(web->plain_link_secrets[0].text);
    assert_int_equal(web->link_secrets.n, 0);
    assert_int_equal(web->queries_per_minute, 0);
    assert_int_equal(web->watchers, 0);
    assert_int_equal(web->origins.n, 0);
    teams_done(&teams);
}

TEST(each_token_identifies_its_team)
{
    struct teams teams = two_teams();
    const struct team *web = teams_by_name(&teams, "web");
    assert_ptr_equal(teams_by_token(&teams, TOKEN_A, strlen(TOKEN_A)), web);
    assert_ptr_equal(teams_by_token(&teams, TOKEN_B, strlen(TOKEN_B)), web);
    assert_ptr_equal(teams_by_token(&teams, TOKEN_C, strlen(TOKEN_C)), teams_by_name(&teams, "film"));
    teams_done(&teams);
}

TEST(malformed_token_identifies_no_team)
{
    struct teams teams = two_teams();
    static char large[100000];
    assert_null(teams_by_token(&teams, "", 0));
    assert_null(teams_by_token(&teams, TOKEN_A, strlen(TOKEN_A) - 1));
    assert_null(teams_by_token(&teams, TOKEN_A, sizeof(TOKEN_A))); /* with the NUL */
    assert_null(teams_by_token(&teams, "\xff\xfe\r\n\0x", 6));
    assert_null(teams_by_token(&teams, large, sizeof(large)));
    assert_null(teams_by_token(&teams, digests[0], 64)); /* a leaked digest is not a token */
    assert_null(teams_by_name(&teams, "we"));
    assert_null(teams_by_name(&teams, ""));
    teams_done(&teams);
}

TEST(team_may_use_its_listed_providers)
{
    struct teams teams = two_teams();
    const struct team *web = teams_by_name(&teams, "web");
    assert_true(team_may_use(web, &sora));
    assert_false(team_may_use(web, &kling));
    teams_done(&teams);
}

TEST(origin_is_compared_byte_by_byte)
{
    struct teams teams = two_teams();
    const struct team *web = teams_by_name(&teams, "web");
    assert_true(team_has_origin(web, "https://app.example.com"));
    assert_true(team_has_origin(web, "http://localhost:3000"));
    assert_false(team_has_origin(web, "https://film.example.com"));
    static const char *const others[] = {"null",
                                         "",
                                         "*",
                                         "https://APP.example.com",
                                         "https://app.example.com:443",
                                         "https://app.example.com/",
                                         "http://app.example.com",
                                         "https://app.example.com.evil.com"};
    for (size_t i = 0; i < NELEMS(others); i++) {
        assert_false(team_has_origin(web, others[i]));
        assert_false(teams_have_origin(&teams, others[i]));
    }
    assert_true(teams_have_origin(&teams, "https://app.example.com"));
    assert_true(teams_have_origin(&teams, "https://film.example.com"));
    teams_done(&teams);
}

TEST(origins_have_the_format_that_browsers_send)
{
    static const char *const good[] = {"https://a",
                                       "https://a.b-c.example:8443",
                                       "http://127.0.0.1:8080",
                                       "http://[::1]:3000",
                                       "https://a:80",
                                       "http://a:443"};
    for (size_t i = 0; i < NELEMS(good); i++) {
        char *text = xasprintf("%s, \"origins\": [\"%s\"]}}", WEB, good[i]);
        struct teams teams = load_good(text);
        teams_done(&teams);
        free(text);
    }
}

TEST(other_origins_are_refused_with_a_reason)
{
    static const char form[] =
        "must be a scheme, a host and optionally a port, such as \"https://app.example.com\"";
    static const char path[] =
        "must end with the host or port: an origin has neither a path nor a trailing '/'";
    static const char port[] = "must omit the default port of its scheme, as browsers do";
    static const struct {
        const char *origin, *why;
    } bad[] = {
        {"null", "\"null\" is the origin of all sandboxed pages and local files and identifies none of them"},
        {"*", form},
        {"", form},
        {"https://", form},
        {"app.example.com", form},
        {"ftp://app.example.com", form},
        {"https://*.example.com", form},
        {"https://a b", form},
        {"https://user@a", form},
        {"https://a?b", form},
        {"https://[::1", form},
        {"https://App.example.com", "must be in lower case, as browsers send it"},
        {"https://a/", path},
        {"https://a:8443/x", path},
        {"https://a:443", port},
        {"http://a:80", port},
        {"https://a:", "has an invalid port"},
        {"https://a:0", "has an invalid port"},
        {"https://a:08443", "has an invalid port"},
        {"https://a:65536", "has an invalid port"},
        {"https://a:84x", "has an invalid port"},
    };
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *text = xasprintf("%s,\n\"origins\": [\"https://ok\",\n\"%s\"]}}", WEB, bad[i].origin);
        char *expected = xasprintf("/x/teams.json:3: /web/origins/1: %s", bad[i].why);
        assert_refused(text, expected);
        free(expected);
        free(text);
    }
}

#define AT "/x/teams.json:1: "
#define NO_DIGEST                                                                                            \
    "must be a SHA-256 digest: 64 hexadecimal digits in lower case, as taskproxy --new-token prints them"

TEST(errors_are_reported_with_their_location)
{
    static const struct {
        const char *text, *expected;
    } bad[] = {
        {"", "/x/teams.json:1: unexpected end of file"},
        {"[]", AT "must be an object"},
        {"{}", AT "must have 1 to 4096 members"},
        {"{\"a b\": {}}", AT "/a b: a name must have 1 to 64 letters, digits, '_' and '-'"},
        {"{\"web\": {}}", AT "/web: the key \"token_sha256\" is missing"},
        {"{\"web\": {\"token_sha256\": []}}", AT "/web: the key \"providers\" is missing"},
        {WEB ", \"origin\": []}}", AT "/web/origin: unknown key; did you mean \"origins\"?"},
        {WEB ", \"watchers\": -1}}", AT "/web/watchers: must be from 0 to 1000000"},
        {WEB "},\n \"web\": {}}", "/x/teams.json:2: a duplicate key"},
        {"{\"web\": {\"token_sha256\": [], \"providers\": [\"sora\",\n\"soda\"]}}",
         "/x/teams.json:2: /web/providers/1: no route has this provider; configured providers: \"sora\", "
         "\"kling\""},
        {WEB ", \"link_secret_file\": \"nowhere\"}}",
         AT "/web/link_secret_file: \"/x/nowhere\" was not passed to this worker"},
        {WEB ", \"link_secret_file\": \"secrets/short\"}}",
         AT "/web/link_secret_file: \"/x/secrets/short\" must contain at least 32 characters"},
        {WEB ", \"link_secret_file\": \"secrets/lines\"}}",
         AT "/web/link_secret_file: \"/x/secrets/lines\" must contain one line of visible ASCII characters"},
        {WEB ", \"link_secrets\": {\"a\": \"secrets/links\",\n\"b\": \"secrets/short\"}}}",
         "/x/teams.json:2: /web/link_secrets/b: must name a file with at least 32 characters"},
        {WEB ", \"link_secrets\": {\"a\": \"secrets/lines\"}}}",
         AT "/web/link_secrets/a: \"/x/secrets/lines\" must contain one line of visible ASCII characters"},
        {WEB ", \"link_secrets\": {\"a\": 1}}}", AT "/web/link_secrets/a: must be a string, not int"},
        {WEB ", \"old_link_secret_file\": \"secrets/old\"}}",
         AT "/web/old_link_secret_file: requires a link_secret_file, which replaces it"},
    };
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_refused(bad[i].text, bad[i].expected);
}

TEST(malformed_digest_is_refused)
{
    static const char *const bad[] = {"", "9f86d081",
                                      "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
                                      "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 ",
                                      "xf86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *text = xasprintf("{\"web\": {\"providers\": [], \"token_sha256\": [\"%s\"]}}", bad[i]);
        assert_refused(text, AT "/web/token_sha256/0: " NO_DIGEST);
        free(text);
    }
}

TEST(token_belongs_to_one_team_and_is_listed_once)
{
    char *same_team = xasprintf("{\"web\": {\"providers\": [], \"token_sha256\": [\"%s\", \"%s\"]}}",
                                digests[0], digests[0]);
    char *two = xasprintf("{\"web\": {\"providers\": [], \"token_sha256\": [\"%s\"]},\n"
                          "\"film\": {\"providers\": [], \"token_sha256\": [\"%s\", \"%s\"]}}",
                          digests[0], digests[1], digests[0]);
    char *three = xasprintf("{\"web\": {\"providers\": [], \"token_sha256\": [\"%s\", \"%s\", \"%s\"]}}",
                            digests[0], digests[1], digests[2]);
    assert_refused(same_team, AT "/web/token_sha256/1: the same token is listed twice");
    assert_refused(two, "/x/teams.json:2: /film/token_sha256/1: another team has the same token");
    assert_refused(three, AT "/web/token_sha256: must have 0 to 2 members");
    free(same_team);
    free(two);
    free(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys_of_a_team_are_read),
        cmocka_unit_test(omitted_limits_are_unlimited),
        cmocka_unit_test(each_token_identifies_its_team),
        cmocka_unit_test(malformed_token_identifies_no_team),
        cmocka_unit_test(team_may_use_its_listed_providers),
        cmocka_unit_test(origin_is_compared_byte_by_byte),
        cmocka_unit_test(origins_have_the_format_that_browsers_send),
        cmocka_unit_test(other_origins_are_refused_with_a_reason),
        cmocka_unit_test(errors_are_reported_with_their_location),
        cmocka_unit_test(malformed_digest_is_refused),
        cmocka_unit_test(token_belongs_to_one_team_and_is_listed_once),
    };
    return cmocka_run_group_tests_name("teams", tests, make_digests, NULL);
}
