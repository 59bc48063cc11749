/* Signed links: the signed bytes, the grammar of the three parameters, and the lifetime. */
#include "unit.h"

#include <string.h>

#include "access/link.h"

#define NEW_SECRET "0123456789abcdef0123456789abcdef"
#define OLD_SECRET "fedcba9876543210fedcba9876543210"
#define SIG        "8af923a613f1d47648e8ad7b347eba32523a3fc2505a7afe7698fa373aff6ca4"
#define EXP        1767225600

#define WEEK    (7 * 86400)
#define KID_SIG "f03c2c5546e8a3a8f7cfa1e26ee3dc25a13c1c7b5ac2b00ee798c61e0a8698f6"

static struct named_secret named = {(char *)"2026-01", {.text = (char *)NEW_SECRET}};
static const struct team web = {
    .name = (char *)"web",
    .link_secrets = {&named, 1},
    .plain_link_secrets = {{.text = (char *)NEW_SECRET}, {.text = (char *)OLD_SECRET}}};

/* Whether the signature of web's link for sora/task_01 is valid for this request. */
static enum problem check(const char *sig, const char *provider, const char *id, int64_t exp, int64_t now_s)
{
    struct link link = {.team = "web", .exp = exp};
    strcpy(link.sig, sig);
    return link_check(&link, &web, provider, id, now_s, WEEK);
}

TEST(signature_covers_the_documented_bytes)
{
    static const struct {
        const char *secret, *kid, *team, *provider, *id;
        int64_t exp;
        const char *sig;
    } vectors[] = {
        {NEW_SECRET, "", "web", "sora", "task_01", EXP, SIG},
        {NEW_SECRET, "2026-01", "web", "sora", "task_01", EXP, KID_SIG},
        {OLD_SECRET, "", "film-2", "fal", "fal-ai/pika/ID", 1,
         "7d9785c731129a39121145e971f9038d3d280d70a47e00d4a9c72d9f6c9927a6"},
    };
    for (size_t i = 0; i < NELEMS(vectors); i++) {
        char sig[LINK_SIG_SIZE];
        link_sign(vectors[i].secret, vectors[i].kid, vectors[i].team, vectors[i].provider, vectors[i].id,
                  vectors[i].exp, sig);
        assert_string_equal(sig, vectors[i].sig);
    }
}

TEST(link_is_valid_for_one_task_of_one_team)
{
    struct link link = {.team = "web", .exp = EXP, .sig = SIG};
    struct team other = web;
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP - 60), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora", "task_02", EXP, EXP - 60), PROBLEM_WRONG_LINK);
    assert_int_equal(check(SIG, "kling", "task_01", EXP, EXP - 60), PROBLEM_WRONG_LINK);
    assert_int_equal(check(SIG, "sora", "task_01", EXP + 1, EXP - 60), PROBLEM_WRONG_LINK);
    other.name = (char *)"film";
    assert_int_equal(link_check(&link, &other, "sora", "task_01", EXP - 60, WEEK), PROBLEM_WRONG_LINK);
}

TEST(both_secrets_are_valid_during_a_rotation)
{
    struct team team = web;
    struct link link = {.team = "web", .exp = EXP};
    link_sign(OLD_SECRET, "", "web", "sora", "task_01", EXP, link.sig);
    assert_int_equal(link_check(&link, &team, "sora", "task_01", EXP, WEEK), PROBLEM_NONE);
    team.plain_link_secrets[1].text = NULL;
    assert_int_equal(link_check(&link, &team, "sora", "task_01", EXP, WEEK), PROBLEM_WRONG_LINK);
    team.plain_link_secrets[0].text = NULL;
    assert_int_equal(link_check(&link, &team, "sora", "task_01", EXP, WEEK), PROBLEM_WRONG_LINK);
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
        struct link link = {.team = "web", .exp = EXP};
        strcpy(link.kid, links[i].kid);
        strcpy(link.sig, links[i].sig);
        assert_int_equal(link_check(&link, &web, "sora", "task_01", EXP, WEEK), links[i].problem);
    }
}

TEST(link_expires_thirty_seconds_late_for_clock_differences)
{
    char sig[LINK_SIG_SIZE];
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP + 30), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP + 31), PROBLEM_LINK_EXPIRED);
    memset(sig, '0', sizeof(sig) - 1);
    sig[LINK_SIG_SIZE - 1] = '\0';
    assert_int_equal(check(sig, "sora", "task_01", EXP, EXP + 31), PROBLEM_WRONG_LINK);
}

TEST(link_with_a_longer_lifetime_is_refused)
{
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP - WEEK), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP - WEEK - 30), PROBLEM_NONE);
    assert_int_equal(check(SIG, "sora", "task_01", EXP, EXP - WEEK - 31), PROBLEM_LINK_TOO_LONG);
    assert_int_equal(check(KID_SIG, "sora", "task_01", EXP, EXP - WEEK - 31), PROBLEM_WRONG_LINK);
}

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
        cmocka_unit_test(kid_is_optional),
        cmocka_unit_test(parameters_may_be_in_any_order_with_others_between),
        cmocka_unit_test(missing_parameter_means_no_link),
        cmocka_unit_test(malformed_link_is_rejected),
    };
    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
