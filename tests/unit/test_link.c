/* Signed links: the signed bytes, the grammar of the parameters, lists of tasks, and the lifetime. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "access/link.h"

#define NEW_SECRET "0123456789abcdef0123456789abcdef"
#define OLD_SECRET "fedcba9876543210fedcba9876543210"
#define SIG        "8af923a613f1d47648e8ad7b347eba32523a3fc2505a7afe7698fa373aff6ca4"
#define EXP        1767225600

#define WEEK    (7 * 86400)
#define KID_SIG "f03c2c5546e8a3a8f7cfa1e26ee3dc25a13c1c7b5ac2b00ee798c61e0a8698f6"

#define TASKS    "sora/task_01,sora/task_02"
#define LIST_SIG "9f44c4a0e99af81d84857b066b6fb1e36a700fbf38afbd2258e4f9cca4546b77"
#define ONE_SIG  "1c889aa237d24b82a11546e8709726245c2e0f63d9776605f9c28d50d4605ebd"

static struct named_secret named = {(char *)"2026-01", {.text = (char *)NEW_SECRET}};
static const struct team web = {
    .name = (char *)"web",
    .link_secrets = {&named, 1},
    .plain_link_secrets = {{.text = (char *)NEW_SECRET}, {.text = (char *)OLD_SECRET}}};

/* Whether the signature of web's link for sora/task_01 is valid for this task. */
static enum problem check(const char *sig, const char *task, int64_t exp, int64_t now_s)
{
    struct link link = {.team = "web", .exp = exp};
    strcpy(link.sig, sig);
    strcpy(link.tasks, task);
    return link_check(&link, &web, now_s, WEEK);
}

TEST(signature_covers_the_documented_bytes)
{
    static const struct {
        const char *secret;
        struct link link;
    } vectors[] = {
        {NEW_SECRET, {.team = "web", .tasks = "sora/task_01", .exp = EXP, .sig = SIG}},
        {NEW_SECRET, {.team = "web", .tasks = "sora/task_01", .exp = EXP, .kid = "2026-01", .sig = KID_SIG}},
        {OLD_SECRET,
         {.team = "film-2",
          .tasks = "fal/fal-ai/pika/ID",
          .exp = 1,
          .sig = "7d9785c731129a39121145e971f9038d3d280d70a47e00d4a9c72d9f6c9927a6"}},
        {NEW_SECRET,
         {.team = "web", .is_list = true, .tasks = TASKS, .exp = EXP, .kid = "2026-01", .sig = LIST_SIG}},
        {NEW_SECRET, {.team = "web", .is_list = true, .tasks = "sora/task_01", .exp = EXP, .sig = ONE_SIG}},
    };
    for (size_t i = 0; i < NELEMS(vectors); i++) {
        char sig[LINK_SIG_SIZE];
        link_sign(vectors[i].secret, &vectors[i].link, sig);
        assert_string_equal(sig, vectors[i].link.sig);
    }
}

TEST(link_is_valid_for_one_task_of_one_team)
{
    struct link link = {.team = "film", .exp = EXP, .sig = SIG, .tasks = "sora/task_01"};
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP - 60), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora/task_02", EXP, EXP - 60), PROBLEM_WRONG_LINK);
    assert_int_equal(check(SIG, "kling/task_01", EXP, EXP - 60), PROBLEM_WRONG_LINK);
    assert_int_equal(check(SIG, "sora/task_01", EXP + 1, EXP - 60), PROBLEM_WRONG_LINK);
    assert_int_equal(link_check(&link, &web, EXP - 60, WEEK), PROBLEM_WRONG_LINK);
}

TEST(both_secrets_are_valid_during_a_rotation)
{
    struct team team = web;
    struct link link = {.team = "web", .exp = EXP, .tasks = "sora/task_01"};
    link_sign(OLD_SECRET, &link, link.sig);
    assert_int_equal(link_check(&link, &team, EXP, WEEK), PROBLEM_NONE);
    team.plain_link_secrets[1].text = NULL;
    assert_int_equal(link_check(&link, &team, EXP, WEEK), PROBLEM_WRONG_LINK);
    team.plain_link_secrets[0].text = NULL;
    assert_int_equal(link_check(&link, &team, EXP, WEEK), PROBLEM_WRONG_LINK);
}

TEST(link_with_kid_is_verified_with_that_secret_only)
{
    static const struct {
        const char *kid, *sig;
        enum problem problem;
    } links[] = {{"2026-01", KID_SIG, PROBLEM_NONE},
                 {"2026-01", SIG, PROBLEM_WRONG_LINK}, /* the kid is signed */
                 {"", KID_SIG, PROBLEM_WRONG_LINK},
                 {"2026-02", KID_SIG, PROBLEM_WRONG_LINK}};
    for (size_t i = 0; i < NELEMS(links); i++) {
        struct link link = {.team = "web", .exp = EXP, .tasks = "sora/task_01"};
        strcpy(link.kid, links[i].kid);
        strcpy(link.sig, links[i].sig);
        assert_int_equal(link_check(&link, &web, EXP, WEEK), links[i].problem);
    }
}

TEST(link_expires_thirty_seconds_late_for_clock_differences)
{
    char sig[LINK_SIG_SIZE];
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP + 30), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP + 31), PROBLEM_LINK_EXPIRED);
    memset(sig, '0', sizeof(sig) - 1);
    sig[LINK_SIG_SIZE - 1] = '\0';
    assert_int_equal(check(sig, "sora/task_01", EXP, EXP + 31), PROBLEM_WRONG_LINK);
}

TEST(link_with_a_longer_lifetime_is_refused)
{
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP - WEEK), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP - WEEK - 30), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora/task_01", EXP, EXP - WEEK - 31), PROBLEM_LINK_TOO_LONG);
    assert_int_equal(check(KID_SIG, "sora/task_01", EXP, EXP - WEEK - 31), PROBLEM_WRONG_LINK);
}

/* ---- lists ---- */

/* Reads the list as the parameter of an otherwise correct link. */
static enum problem read_list(const char *tasks, struct link *link)
{
    char *query = xasprintf("team=web&exp=1767225600&tasks=%s&kid=2026-01&sig=" LIST_SIG, tasks);
    enum problem problem = link_read(query, link);
    free(query);
    return problem;
}

TEST(list_is_valid_as_it_was_signed)
{
    static const char *const same[] = {TASKS, "sora%2Ftask_01%2Csora%2ftask_02",
                                       "%73ora/task_01,sora/task_0%32"};
    struct link link;
    for (size_t i = 0; i < NELEMS(same); i++) {
        assert_int_equal(read_list(same[i], &link), PROBLEM_NONE);
        assert_true(link.is_list);
        assert_string_equal(link.tasks, TASKS);
        assert_int_equal(link_check(&link, &web, EXP, WEEK), PROBLEM_NONE);
    }
    assert_int_equal(link_check(&link, &web, EXP + 31, WEEK), PROBLEM_LINK_EXPIRED);
    assert_int_equal(link_read("team=web&exp=1767225600&sig=" SIG, &link), PROBLEM_NONE);
    assert_false(link.is_list);
}

TEST(other_list_than_the_signed_one_is_wrong)
{
    static const char *const others[] = {"sora/task_01",
                                         "sora/task_02",
                                         "sora/task_01,sora/task_03",
                                         "kling/x," TASKS,
                                         TASKS ",sora/task_03",
                                         "sora/task_01,sora/task_020",
                                         "Sora/task_01,sora/task_02",
                                         "sora/task_01,sora/task_02%2B"};
    struct link link;
    for (size_t i = 0; i < NELEMS(others); i++) {
        assert_int_equal(read_list(others[i], &link), PROBLEM_NONE);
        if (link_check(&link, &web, EXP, WEEK) != PROBLEM_WRONG_LINK)
            fail_msg("%s", others[i]);
    }
}

/* The text of one kind of link is never that of the other. */
TEST(links_for_a_task_and_for_a_list_are_not_interchangeable)
{
    struct link list = {.team = "web", .exp = EXP, .is_list = true, .tasks = "sora/task_01", .sig = SIG};
    struct link task = {.team = "web", .exp = EXP, .tasks = "sora/task_01", .sig = ONE_SIG};
    assert_int_equal(link_check(&list, &web, EXP, WEEK), PROBLEM_WRONG_LINK);
    assert_int_equal(link_check(&task, &web, EXP, WEEK), PROBLEM_WRONG_LINK);
}

TEST(malformed_list_is_rejected)
{
    static const char *const lists[] = {"",
                                        ",",
                                        "sora/a,",
                                        ",sora/a",
                                        "sora/a,,sora/b",
                                        "sora/b,sora/a",
                                        "sora/a,sora/a",
                                        "sora/b,sora/a,sora/c",
                                        "sora/a%2Csora/a",
                                        "sora/aa,sora/a",
                                        "sora/a%0A1767225600",
                                        "sora/a%00",
                                        "sora/a%2",
                                        "sora/%zz",
                                        "sora/a%20b",
                                        "sora/a b",
                                        "sora/a\"",
                                        "sora/%c3%a4",
                                        "sora/a&tasks=sora/a",
                                        "sora/a&tasks=",
                                        "sora/a,sora/B"};
    struct link link;
    for (size_t i = 0; i < NELEMS(lists); i++) {
        if (read_list(lists[i], &link) != PROBLEM_BAD_LINK)
            fail_msg("%s", lists[i]);
    }
    assert_int_equal(link_read("tasks=sora/a", &link), PROBLEM_NO_CREDENTIAL);
    assert_int_equal(link_read("tasks=sora/a&team=web", &link), PROBLEM_BAD_LINK);
}

TEST(list_has_at_most_a_hundred_tasks)
{
    struct link link;
    struct buf list;
    buf_init(&list, 4096);
    for (int i = 0; i < 100; i++)
        buf_addf(&list, "%ssora/%03d", i > 0 ? "," : "", i);
    assert_int_equal(read_list(list.data, &link), PROBLEM_NONE);
    buf_puts(&list, ",sora/100");
    assert_int_equal(read_list(list.data, &link), PROBLEM_BAD_LINK);
    buf_done(&list);
    char *id = xcalloc(1, LINK_TASKS_SIZE + 1);
    memset(id, 'x', LINK_TASKS_SIZE);
    assert_int_equal(read_list(id, &link), PROBLEM_BAD_LINK);
    free(id);
}

TEST(list_has_whole_names_only)
{
    static const char list[] = "fal/fal-ai/pika/a,sora/a,sora/ab";
    static const struct {
        const char *provider, *id;
        bool has;
    } names[] = {{"sora", "a", true},
                 {"sora", "ab", true},
                 {"fal", "fal-ai/pika/a", true},
                 {"sora", "b", false},
                 {"sora", "abc", false},
                 {"sora", "", false},
                 {"fal", "fal-ai/pika", false},
                 {"fal", "a", false},
                 {"ora", "a", false},
                 {"sora", "A", false},
                 {"sora/a", "sora", false},
                 {"sora", "a,sora/ab", false},
                 {"fal", "fal-ai/pika/a,sora/a", false}};
    for (size_t i = 0; i < NELEMS(names); i++) {
        if (link_has_task(list, names[i].provider, names[i].id) != names[i].has)
            fail_msg("%s/%s", names[i].provider, names[i].id);
    }
}

/* ---- parameters ---- */

TEST(kid_is_optional)
{
    struct link link;
    assert_int_equal(link_read("kid=2026-01&team=web&exp=1767225600&sig=" SIG, &link), PROBLEM_NONE);
    assert_string_equal(link.kid, "2026-01");
    assert_int_equal(link_read("team=web&exp=1767225600&sig=" SIG, &link), PROBLEM_NONE);
    assert_string_equal(link.kid, "");
}

TEST(parameters_may_be_in_any_order_with_others_between)
{
    static const char *const queries[] = {
        "team=web&exp=1767225600&sig=" SIG,
        "sig=" SIG "&exp=1767225600&team=web",
        "wait=30&sig=" SIG "&teams=x&exp=1767225600&&team=web&experience=1",
        "&task_id=42&exp=1767225600&team=web&signature&sig=" SIG "&",
    };
    for (size_t i = 0; i < NELEMS(queries); i++) {
        struct link link;
        assert_int_equal(link_read(queries[i], &link), PROBLEM_NONE);
        assert_string_equal(link.team, "web");
        assert_int_equal(link.exp, EXP);
        assert_string_equal(link.sig, SIG);
    }
}

TEST(missing_parameter_means_no_link)
{
    static const char *const queries[] = {NULL,
                                          "",
                                          "wait=30",
                                          "Team=web&EXP=1&Sig=0",
                                          "teams=web&sign=1",
                                          "%74eam=web",
                                          "a=team=web",
                                          "=team",
                                          "&&",
                                          "?team",
                                          "kid=1"};
    struct link link;
    for (size_t i = 0; i < NELEMS(queries); i++)
        assert_int_equal(link_read(queries[i], &link), PROBLEM_NO_CREDENTIAL);
}

TEST(malformed_link_is_rejected)
{
    static const char *const queries[] = {
        "team=web",
        "team=web&exp=1767225600",
        "exp=1767225600&sig=" SIG,
        "team=web&sig=" SIG,
        "team&exp=1767225600&sig=" SIG,
        "team=&exp=1767225600&sig=" SIG,
        "team=web&team=web&exp=1767225600&sig=" SIG,
        "team=web&exp=1767225600&exp=1767225600&sig=" SIG,
        "team=web&exp=1767225600&sig=" SIG "&sig=" SIG,
        "team=w%65b&exp=1767225600&sig=" SIG,
        "team=we+b&exp=1767225600&sig=" SIG,
        "team=a23456789012345678901234567890123456789012345678901234567890123456&exp=1767225600&sig=" SIG,
        "team=web&exp=&sig=" SIG,
        "team=web&exp=01767225600&sig=" SIG,
        "team=web&exp=+1767225600&sig=" SIG,
        "team=web&exp=-1&sig=" SIG,
        "team=web&exp=0&sig=" SIG,
        "team=web&exp=1767225600.0&sig=" SIG,
        "team=web&exp=0x1767&sig=" SIG,
        "team=web&exp=9999999999999&sig=" SIG,
        "team=web&exp=99999999999999999999999999&sig=" SIG,
        "team=web&exp=1767225600&sig=",
        "team=web&exp=1767225600&sig=8af923",
        "team=web&exp=1767225600&sig=" SIG "0",
        "team=web&exp=1767225600&sig=8AF923A613F1D47648E8AD7B347EBA32523A3FC2505A7AFE7698FA373AFF6CA4",
        "team=web&exp=1767225600&sig=xaf923a613f1d47648e8ad7b347eba32523a3fc2505a7afe7698fa373aff6ca4",
        "team=web&exp=1767225600&Sig=" SIG,
        "kid=&team=web&exp=1767225600&sig=" SIG,
        "kid=1&team=web&exp=1767225600&sig=" SIG "&kid=1",
        "kid=a%41&team=web&exp=1767225600&sig=" SIG,
        "kid=1&team=web&exp=1767225600",
    };
    struct link link;
    for (size_t i = 0; i < NELEMS(queries); i++) {
        if (link_read(queries[i], &link) != PROBLEM_BAD_LINK)
            fail_msg("%s", queries[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signature_covers_the_documented_bytes),
        cmocka_unit_test(link_is_valid_for_one_task_of_one_team),
        cmocka_unit_test(both_secrets_are_valid_during_a_rotation),
        cmocka_unit_test(link_expires_thirty_seconds_late_for_clock_differences),
        cmocka_unit_test(link_with_kid_is_verified_with_that_secret_only),
        cmocka_unit_test(link_with_a_longer_lifetime_is_refused),
        cmocka_unit_test(list_is_valid_as_it_was_signed),
        cmocka_unit_test(other_list_than_the_signed_one_is_wrong),
        cmocka_unit_test(links_for_a_task_and_for_a_list_are_not_interchangeable),
        cmocka_unit_test(malformed_list_is_rejected),
        cmocka_unit_test(list_has_at_most_a_hundred_tasks),
        cmocka_unit_test(list_has_whole_names_only),
        cmocka_unit_test(kid_is_optional),
        cmocka_unit_test(parameters_may_be_in_any_order_with_others_between),
        cmocka_unit_test(missing_parameter_means_no_link),
        cmocka_unit_test(malformed_link_is_rejected),
    };
    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
