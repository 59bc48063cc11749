/* Access by token, by link, or by a team name from the web server; and which web origins may read the answer. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access/access.h"
#include "access/link.h"
#include "given.h"

#define PROVIDER(name, header, value)                                                                        \
    "{\"name\":\"" name "\",\"path\":\"/" name "/{task_id}\",\"task_id\":\"[a-z]+\",\"auth\":{\"header\":"   \
    "\"" header "\",\"value\":\"" value "\"},\"status\":{\"at\":\"/s\"},\"keep\":[\"/s\"]}"
#define ROUTE(name, more) "{\"provider\":\"" name "\",\"upstream\":\"main\"" more "}"
#define CONF(mode)                                                                                           \
    "{\"upstreams\":{\"main\":{\"base_url\":\"https://a\",\"key_files\":[\"key\"]},"                         \
    "\"other\":{\"base_url\":\"https://b\",\"key_files\":[\"key\"]}},\"routes\":[" ROUTE(                    \
        "sora",                                                                                              \
        "") "," ROUTE("fal",                                                                                 \
                      "") "," ROUTE("goog",                                                                  \
                                    "") "," ROUTE("jwt",                                                     \
                                                  "") "," ROUTE("odd",                                       \
                                                                "") ",{\"provider\":\"sora\",\"upstream\":"  \
                                                                    "\"other\",\"path\":\"/second/"          \
                                                                    "{task_id}\"}],"                         \
                                                                    "\"access\":{\"mode\":\"" mode           \
                                                                    "\",\"teams_file\":\"teams\"}}"

enum { SORA, FAL, GOOG, JWT, ODD, SECOND_SORA, NOW = 1767225600 };

static const char secret[] = "0123456789abcdef0123456789abcdef";
static struct conf *teams_conf, *nginx_conf, *open_conf;

/* The digest of "tp-web" for web, of "tp-film" for film. */
static char *teams_text(void)
{
    char digests[2][65];
    static const char *const tokens[] = {"tp-web", "tp-film"};
    for (size_t i = 0; i < NELEMS(tokens); i++) {
        unsigned char digest[32];
        sha256(tokens[i], strlen(tokens[i]), digest);
        hex_encode(digest, sizeof(digest), digests[i]);
    }
    return xasprintf(
        "{\"web\":{\"token_sha256\":[\"%s\"],\"providers\":[\"sora\",\"fal\",\"goog\",\"jwt\",\"odd\"],"
        "\"origins\":[\"https://web\"],\"link_secret_file\":\"secret\"},"
        "\"film\":{\"token_sha256\":[\"%s\"],\"providers\":[\"fal\"],\"origins\":[\"https://film\"]}}",
        digests[0], digests[1]);
}

static struct conf *load(const char *text)
{
    char *teams = teams_text(), *error;
    const struct given given[] = {
        {"/x/t.json", text, 0},
        {"/x/key", "access-key:secret-key", 0},
        {"/x/secret", secret, 0},
        {"/x/teams", teams, 0},
        {"/x/providers/sora.json", PROVIDER("sora", "Authorization", "Bearer {key}"), 0},
        {"/x/providers/fal.json", PROVIDER("fal", "Authorization", "Key {key}"), 0},
        {"/x/providers/goog.json", PROVIDER("goog", "x-goog-api-key", "{key}"), 0},
        {"/x/providers/jwt.json", PROVIDER("jwt", "Authorization", "Bearer {jwt}"), 0},
        {"/x/providers/odd.json", PROVIDER("odd", "X-Odd", "key={key};v=1"), 0},
    };
    struct conf *conf = conf_load("/x/t.json", given_files(given, NELEMS(given)), &error);
    if (conf == NULL)
        print_error("%s\n", error);
    free(teams);
    return conf;
}

static int load_all(void **unused __attribute__((unused)))
{
    teams_conf = load(CONF("teams"));
    nginx_conf = load(CONF("nginx"));
    open_conf = load(CONF("open"));
    return teams_conf && nginx_conf && open_conf ? 0 : -1;
}

static int free_all(void **unused __attribute__((unused)))
{
    conf_free(teams_conf);
    conf_free(nginx_conf);
    conf_free(open_conf);
    return 0;
}

static struct task task_of(const struct conf *conf, size_t route)
{
    struct task task;
    task_init(&task, conf_route(conf, route), "abc");
    return task;
}

static void assert_team(const struct conf *conf, const struct credentials *given, size_t route,
                        const char *name)
{
    const struct task task = task_of(conf, route);
    struct caller caller;
    enum problem problem = access_authenticate(conf, given, &task, NOW, &caller);
    if (problem != PROBLEM_NONE)
        fail_msg("%s", problem_code(problem));
    assert_string_equal(caller.team->name, name);
}

static void assert_problem(const struct conf *conf, const struct credentials *given, size_t route,
                           enum problem expected)
{
    const struct task task = task_of(conf, route);
    struct caller caller;
    assert_int_equal(access_authenticate(conf, given, &task, NOW, &caller), expected);
    free(caller.tasks);
}

TEST(mode_open_ignores_credentials)
{
    const struct task task = task_of(open_conf, SORA);
    struct caller caller;
    const struct credentials none = {0}, wrong = {.authorization = "Bearer x", .query = "team=web"};
    assert_int_equal(access_authenticate(open_conf, &none, &task, NOW, &caller), PROBLEM_NONE);
    assert_int_equal(access_authenticate(open_conf, &wrong, NULL, NOW, &caller), PROBLEM_NONE);
    assert_null(caller.team);
    assert_int_equal(access_authorize(caller.team, NULL, &task), PROBLEM_NONE);
}

TEST(token_is_read_where_the_providers_clients_put_their_key)
{
    assert_team(teams_conf, &(struct credentials){.key_header = "Bearer tp-web"}, SORA, "web");
    assert_team(teams_conf, &(struct credentials){.key_header = "Key tp-web"}, FAL, "web");
    assert_team(teams_conf, &(struct credentials){.key_header = "tp-web"}, GOOG, "web");
    assert_team(teams_conf, &(struct credentials){.key_header = "key=tp-web;v=1"}, ODD, "web");
}

TEST(bearer_token_is_valid_for_every_provider)
{
    for (size_t route = SORA; route <= SECOND_SORA; route++)
        assert_team(teams_conf, &(struct credentials){.authorization = "Bearer tp-web"}, route, "web");
    assert_team(teams_conf, &(struct credentials){.authorization = "bEARER   tp-web"}, SORA, "web");
    assert_team(teams_conf,
                &(struct credentials){.key_header = "Bearer tp-web", .authorization = "Bearer tp-web"}, FAL,
                "web");
}

TEST(providers_own_header_takes_precedence_over_bearer)
{
    assert_problem(teams_conf, &(struct credentials){.key_header = "tp", .authorization = "Bearer tp-web"},
                   GOOG, PROBLEM_WRONG_TOKEN);
}

TEST(malformed_token_is_refused)
{
    static const struct {
        const char *authorization;
        enum problem problem;
    } bad[] = {
        {NULL, PROBLEM_NO_CREDENTIAL},           {"", PROBLEM_NO_CREDENTIAL},
        {"Bearer", PROBLEM_NO_CREDENTIAL},       {"Bearer ", PROBLEM_NO_CREDENTIAL},
        {"Bearer tp-we", PROBLEM_WRONG_TOKEN},   {"Bearer tp-web ", PROBLEM_WRONG_TOKEN},
        {"tp-web", PROBLEM_NO_CREDENTIAL},       {"Basic dHAtd2Vi", PROBLEM_NO_CREDENTIAL},
        {"Key tp-web", PROBLEM_NO_CREDENTIAL},   {"Bearer \xff\xfe\x01", PROBLEM_WRONG_TOKEN},
        {"Bearertp-web", PROBLEM_NO_CREDENTIAL},
    };
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_problem(teams_conf, &(struct credentials){.authorization = bad[i].authorization}, SORA,
                       bad[i].problem);
}

TEST(team_name_from_the_web_server_counts_in_mode_nginx_only)
{
    const struct credentials web = {.team = "web"}, nobody = {.team = "nobody"}, none = {0};
    const struct credentials token = {.authorization = "Bearer tp-web", .key_header = "Bearer tp-web"};
    assert_team(nginx_conf, &web, SORA, "web");
    assert_problem(nginx_conf, &nobody, SORA, PROBLEM_NO_TEAM);
    assert_problem(nginx_conf, &none, SORA, PROBLEM_NO_TEAM);
    assert_problem(nginx_conf, &token, SORA, PROBLEM_NO_TEAM);
    assert_problem(teams_conf, &web, SORA, PROBLEM_NO_CREDENTIAL);
}

TEST(team_may_use_its_providers_only)
{
    const struct credentials film = {.authorization = "Bearer tp-film"};
    struct caller caller;
    const struct task sora = task_of(teams_conf, SORA), fal = task_of(teams_conf, FAL);
    assert_team(teams_conf, &film, FAL, "film");
    assert_problem(teams_conf, &film, SORA, PROBLEM_FORBIDDEN);
    assert_problem(nginx_conf, &(struct credentials){.team = "film"}, SORA, PROBLEM_FORBIDDEN);
    assert_int_equal(access_authenticate(teams_conf, &film, NULL, NOW, &caller), PROBLEM_NONE);
    assert_int_equal(access_authorize(caller.team, NULL, &sora), PROBLEM_FORBIDDEN);
    assert_int_equal(access_authorize(caller.team, NULL, &fal), PROBLEM_NONE);
}

/* The query string of a link of team web for this task. */
static char *link_query(const char *provider, const char *id, int64_t exp)
{
    struct link link = {.team = "web", .exp = exp};
    snprintf(link.tasks, sizeof(link.tasks), "%s/%s", provider, id);
    link_sign(secret, &link, link.sig);
    return xasprintf("wait=1&team=web&exp=%lld&sig=%s", (long long)exp, link.sig);
}

/* The same for a list. */
static char *list_query(const char *tasks)
{
    struct link link = {.team = "web", .exp = NOW + 60, .is_list = true};
    snprintf(link.tasks, sizeof(link.tasks), "%s", tasks);
    link_sign(secret, &link, link.sig);
    return xasprintf("ids=x&tasks=%s&team=web&exp=%lld&sig=%s", tasks, (long long)link.exp, link.sig);
}

TEST(link_is_valid_for_its_task)
{
    char *query = link_query("sora", "abc", NOW + 60);
    const struct credentials link = {.query = query};
    const struct credentials beside_basic = {.query = query, .authorization = "Basic dHAtd2Vi"};
    assert_team(teams_conf, &link, SORA, "web");
    assert_team(nginx_conf, &link, SORA, "web");
    assert_team(teams_conf, &beside_basic, SORA, "web");
    assert_problem(teams_conf, &link, FAL, PROBLEM_WRONG_LINK);
    assert_problem(teams_conf, &link, SECOND_SORA, PROBLEM_WRONG_LINK);
    free(query);
}

TEST(access_by_link_ends_with_it)
{
    const struct task task = task_of(teams_conf, SORA);
    char *query = link_query("sora", "abc", NOW + 60);
    struct caller caller;
    assert_int_equal(
        access_authenticate(teams_conf, &(struct credentials){.query = query}, &task, NOW, &caller),
        PROBLEM_NONE);
    assert_int_equal(caller.until_ms, (NOW + 60) * 1000LL);
    assert_int_equal(access_authenticate(teams_conf, &(struct credentials){.key_header = "Bearer tp-web"},
                                         &task, NOW, &caller),
                     PROBLEM_NONE);
    assert_int_equal(caller.until_ms, INT64_MAX);
    free(query);
}

TEST(link_for_a_list_is_valid_for_each_of_its_tasks)
{
    char *query = list_query("sora/abc,sora/abd"), *other = list_query("sora/abd");
    const struct task sora = task_of(teams_conf, SORA), second = task_of(teams_conf, SECOND_SORA);
    struct caller caller;
    assert_int_equal(
        access_authenticate(teams_conf, &(struct credentials){.query = query}, &sora, NOW, &caller),
        PROBLEM_NONE);
    assert_int_equal(caller.until_ms, (NOW + 60) * 1000LL);
    free(caller.tasks);
    assert_int_equal(
        access_authenticate(teams_conf, &(struct credentials){.query = query}, NULL, NOW, &caller),
        PROBLEM_NONE);
    assert_string_equal(caller.tasks, "sora/abc,sora/abd");
    assert_int_equal(access_authorize(caller.team, caller.tasks, &sora), PROBLEM_NONE);
    assert_int_equal(access_authorize(caller.team, caller.tasks, &second), PROBLEM_WRONG_LINK);
    assert_int_equal(access_authorize(caller.team, "sora/abd", &sora), PROBLEM_WRONG_LINK);
    free(caller.tasks);
    assert_problem(teams_conf, &(struct credentials){.query = other}, SORA, PROBLEM_WRONG_LINK);
    assert_problem(teams_conf, &(struct credentials){.query = query}, SECOND_SORA, PROBLEM_WRONG_LINK);
    assert_problem(teams_conf, &(struct credentials){.query = query}, FAL, PROBLEM_WRONG_LINK);
    free(query);
    free(other);
}

TEST(link_for_a_task_is_not_valid_for_a_list)
{
    char *query = link_query("sora", "abc", NOW + 60);
    struct caller caller;
    assert_int_equal(
        access_authenticate(teams_conf, &(struct credentials){.query = query}, NULL, NOW, &caller),
        PROBLEM_WRONG_LINK);
    free(query);
}

TEST(token_takes_precedence_over_a_link)
{
    char *query = link_query("sora", "abc", NOW + 60);
    const struct credentials both = {.query = query, .authorization = "Bearer wrong"};
    assert_problem(teams_conf, &both, SORA, PROBLEM_WRONG_TOKEN);
    free(query);
}

TEST(invalid_link_is_refused)
{
    char *expired = link_query("sora", "abc", NOW - 31), *late = link_query("sora", "abc", NOW + 8 * 86400);
    char *film = xasprintf("team=film&exp=%d&sig=%064d", NOW, 0),
         *none = xasprintf("team=x&exp=%d&sig=%064d", NOW, 0);
    assert_problem(teams_conf, &(struct credentials){.query = expired}, SORA, PROBLEM_LINK_EXPIRED);
    assert_problem(teams_conf, &(struct credentials){.query = late}, SORA, PROBLEM_LINK_TOO_LONG);
    assert_problem(teams_conf, &(struct credentials){.query = film}, SORA, PROBLEM_WRONG_LINK);
    assert_problem(teams_conf, &(struct credentials){.query = none}, SORA, PROBLEM_WRONG_LINK);
    assert_problem(teams_conf, &(struct credentials){.query = "team=web"}, SORA, PROBLEM_BAD_LINK);
    assert_problem(teams_conf, &(struct credentials){.query = "wait=1"}, SORA, PROBLEM_NO_CREDENTIAL);
    free(expired);
    free(late);
    free(film);
    free(none);
}

TEST(origin_may_read_answers_of_its_team_and_problems_without_a_team)
{
    const struct team *web = teams_by_name(&teams_conf->teams, "web");
    assert_true(access_is_origin(teams_conf, web, "https://web"));
    assert_false(access_is_origin(teams_conf, web, "https://film"));
    assert_true(access_is_origin(teams_conf, NULL, "https://film"));
    assert_false(access_is_origin(teams_conf, NULL, "https://other"));
    assert_false(access_is_origin(teams_conf, web, NULL));
    assert_false(access_is_origin(open_conf, NULL, "https://web"));
}

TEST(header_parameter_is_named_as_in_cgi)
{
    char param[ACCESS_PARAM_SIZE];
    access_header_param(conf_route(teams_conf, GOOG)->provider->auth.header, param);
    assert_string_equal(param, "HTTP_X_GOOG_API_KEY");
    access_header_param(conf_route(teams_conf, SORA)->provider->auth.header, param);
    assert_string_equal(param, "HTTP_AUTHORIZATION");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_open_ignores_credentials),
        cmocka_unit_test(token_is_read_where_the_providers_clients_put_their_key),
        cmocka_unit_test(bearer_token_is_valid_for_every_provider),
        cmocka_unit_test(providers_own_header_takes_precedence_over_bearer),
        cmocka_unit_test(malformed_token_is_refused),
        cmocka_unit_test(team_name_from_the_web_server_counts_in_mode_nginx_only),
        cmocka_unit_test(team_may_use_its_providers_only),
        cmocka_unit_test(link_is_valid_for_its_task),
        cmocka_unit_test(access_by_link_ends_with_it),
        cmocka_unit_test(link_for_a_list_is_valid_for_each_of_its_tasks),
        cmocka_unit_test(link_for_a_task_is_not_valid_for_a_list),
        cmocka_unit_test(token_takes_precedence_over_a_link),
        cmocka_unit_test(invalid_link_is_refused),
        cmocka_unit_test(origin_may_read_answers_of_its_team_and_problems_without_a_team),
        cmocka_unit_test(header_parameter_is_named_as_in_cgi),
    };
    return cmocka_run_group_tests_name("access", tests, load_all, free_all);
}
