/* Every way in which a URL gives its expiry, and values that must be ignored. The times are 2025-01-14T15:15:46Z and
 * one hour later. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "upstream/view.h"

static const int64_t signed_at = 1736867746;
static const int64_t hour_later = 1736867746 + 3600;

static void assert_expiry(const char *query, int64_t expected)
{
    char *url = xasprintf("https://cdn.example.com/a/video.mp4?%s", query);
    int64_t at = url_expiry(url);
    if (at != expected)
        fail_msg("%s: %lld, not %lld", query, (long long)at, (long long)expected);
    free(url);
}

static void assert_no_expiry(const char *const *queries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_expiry(queries[i], 0);
}

TEST(azure_urls_expire_with_the_signature_or_its_key)
{
    assert_expiry("st=2025-01-14T15%3A15%3A46Z&se=2025-01-14T16%3A15%3A46Z&sks=b&sig=x%3D", hour_later);
    assert_expiry("se=2025-01-14T16:15:46Z", hour_later);
    assert_expiry("se=2025-02-14T16%3A15%3A46Z&ske=2025-01-14T16%3A15%3A46Z", hour_later);
    assert_expiry("ske=2025-02-14T16%3A15%3A46Z&se=2025-01-14T16%3A15%3A46Z", hour_later);
    assert_expiry("se=2025-01-14T16%3A15Z", hour_later - 46);
    assert_expiry("se=2025-01-14", signed_at - 54946);
}

TEST(amazon_volcano_and_google_urls_have_a_date_and_a_lifetime)
{
    assert_expiry("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20250114T151546Z&X-Amz-Expires=3600",
                  hour_later);
    assert_expiry("X-Amz-Expires=3600&X-Amz-Date=20250114T151546Z", hour_later);
    assert_expiry("x-amz-date=20250114T151546Z&x-amz-expires=3600", hour_later);
    assert_expiry("X-Tos-Date=20250114T151546Z&X-Tos-Expires=3600", hour_later);
    assert_expiry("X-Goog-Date=20250114T151546Z&X-Goog-Expires=3600", hour_later);
}

TEST(aliyun_oss_has_three_signature_versions)
{
    assert_expiry("Expires=1736871346&OSSAccessKeyId=x&Signature=y", hour_later);
    assert_expiry("x-oss-signature-version=OSS2&x-oss-expires=1736871346", hour_later);
    assert_expiry("x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-date=20250114T151546Z&x-oss-expires=3600",
                  hour_later);
    assert_expiry("x-oss-date=20250114T151546Z&x-oss-expires=1736871346", hour_later);
    assert_expiry("x-oss-expires=3600", 0);
}

/* `json` in base64, with these characters in place of "+/=". */
static char *base64(const char *json, const char *specials)
{
    size_t len = strlen(json);
    char *text = xcalloc(len * 2 + 8, 1);
    EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)json, (int)len);
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '+' ? specials[0] : *c == '/' ? specials[1] : *c == '=' ? specials[2] : *c;
    return text;
}

static void assert_policy(const char *json, int64_t expected)
{
    char *text = base64(json, "-~_"), *query = xasprintf("Policy=%s&Signature=x&Key-Pair-Id=y", text);
    assert_expiry(query, expected);
    free(query);
    free(text);
}

TEST(cloudfront_urls_have_a_time_or_a_policy)
{
    assert_expiry("Expires=1736871346&Signature=x&Key-Pair-Id=y", hour_later);
    assert_policy("{\"Statement\":[{\"Resource\":\"https://x/*?>>>???\",\"Condition\":{\"DateLessThan\":"
                  "{\"AWS:EpochTime\":1736871346}}}]}",
                  hour_later);
    assert_policy("{\"Statement\":[{\"Resource\":\"x\",\"Condition\":{\"DateLessThan\":{\"AWS:EpochTime\":"
                  "\"1736871346\"}}}]}",
                  0);
    assert_policy("{\"Statement\":[]}", 0);
    assert_policy("{\"Statement\":{\"0\":5}}", 0);
    assert_policy("[]", 0);
    assert_policy("{", 0);
}

static void assert_token(const char *claims, int64_t expected)
{
    char *text = base64(claims, "-_."), *end = strchr(text, '.');
    if (end != NULL)
        *end = '\0'; /* no padding */
    char *query = xasprintf("_jwt=eyJhbGciOiJIUzI1NiJ9.%s.c2ln", text);
    assert_expiry(query, expected);
    free(query);
    free(text);
}

TEST(runway_urls_have_a_token)
{
    assert_token("{\"exp\":1736871346}", hour_later);
    assert_token("{\"keyHash\":\"ab\",\"bucket\":\"b?>\",\"exp\":1736871346,\"iat\":1}", hour_later);
    assert_token("{\"exp\":\"1736871346\"}", 0);
    assert_token("{\"exp\":1.7e9}", 0);
    assert_token("{\"exp\":18446744073709551615}", 0);
    assert_token("{\"exp\":-1}", 0);
    assert_token("{\"exp\":null}", 0);
    assert_token("{\"exp\":1736871346,\"exp\":1736871346}", 0);
    assert_token("[1736871346]", 0);
    assert_token("", 0);
}

TEST(other_schemes_are_recognized)
{
    assert_expiry("authorization=bce-auth-v1%2Fkey%2F2025-01-14T15%3A15%3A46Z%2F3600%2F%2Fsig", hour_later);
    assert_expiry("authorization=bce-auth-v1/key/2025-01-14T15:15:46Z/3600/host/sig", hour_later);
    assert_expiry("q-sign-algorithm=sha1&q-sign-time=1736867746%3B1736871346&q-key-time=1%3B2", hour_later);
    assert_expiry("q-sign-time=1736867746;1736871346", hour_later);
    assert_expiry("ex=67868db2&is=67853c32&hm=00ff", 1736871346);
    assert_expiry("e=1736871346&token=x:y", hour_later);
}

TEST(earliest_expiry_wins)
{
    assert_expiry("Expires=1736871346&se=2025-01-14T15%3A15%3A46Z&e=1736871347", signed_at);
    assert_expiry("Expires=5&e=1736871346", hour_later);
}

TEST(parameter_names_match_exactly_at_any_position)
{
    assert_expiry("a=1&expires=1736871346", hour_later);
    assert_expiry("a&&b=&Expires=1736871346#fragment", hour_later);
    assert_expiry("xExpires=1736871346", 0);
    assert_expiry("Expires2=1736871346", 0);
    assert_expiry("a=Expires=1736871346", 0);
    assert_expiry("#?Expires=1736871346", 0);
    assert_expiry("Expires=%31736871346", hour_later);
}

TEST(url_without_an_expiry_has_none)
{
    static const char *const urls[] = {"",
                                       "?",
                                       "https://x/y",
                                       "https://x/y?",
                                       "https://x/y?&",
                                       "https://x/y?=",
                                       "https://x/Expires=1736871346",
                                       "https://x/y?Expires",
                                       "https://x/y?Expires="};
    for (size_t i = 0; i < NELEMS(urls); i++)
        assert_int_equal(url_expiry(urls[i]), 0);
}

TEST(implausible_times_are_ignored)
{
    static const char *const queries[] = {"Expires=0",
                                          "Expires=1",
                                          "Expires=999999999",
                                          "Expires=4102444801",
                                          "Expires=1736871346000",
                                          "Expires=9223372036854775807",
                                          "Expires=99999999999999999999999",
                                          "Expires=-1736871346",
                                          "Expires=1e9",
                                          "Expires=0x67868DB2",
                                          "Expires=1736871346.5",
                                          "Expires= 1736871346",
                                          "Expires=1736871346 ",
                                          "Expires=NaN",
                                          "Expires=17368713460000000",
                                          "e=173687134",
                                          "e=17368713460",
                                          "ex=ffffffff",
                                          "ex=67868db",
                                          "ex=67868dg2",
                                          "ex=00000001",
                                          "X-Amz-Date=20250114T151546Z",
                                          "X-Amz-Expires=3600",
                                          "X-Amz-Date=20250114T151546Z&X-Amz-Expires=0",
                                          "X-Amz-Date=20250114T151546Z&X-Amz-Expires=-1",
                                          "X-Amz-Date=20250114T151546Z&X-Amz-Expires=9223372036854775807",
                                          "X-Amz-Date=20250114T151546&X-Amz-Expires=3600",
                                          "X-Amz-Date=2025-01-14T15:15:46Z&X-Amz-Expires=3600",
                                          "X-Amz-Date=99991231T235959Z&X-Amz-Expires=3600",
                                          "X-Amz-Date=00000000T000000Z&X-Amz-Expires=3600",
                                          "X-Amz-Date=20251314T151546Z&X-Amz-Expires=3600",
                                          "X-Amz-Date=20250114T151546Z&X-Amz-Expires=3153600000000"};
    assert_no_expiry(queries, NELEMS(queries));
}

TEST(malformed_values_are_ignored)
{
    static const char *const queries[] = {"se=",
                                          "se=x",
                                          "se=2025",
                                          "se=2025-13-14T16:15:46Z",
                                          "se=2025-01-32T16:15:46Z",
                                          "se=2025-01-14T25:15:46Z",
                                          "se=2025-01-14T16:60:46Z",
                                          "se=2025-01-14T16:15:46X",
                                          "se=2025-01-14T16:15:46%",
                                          "se=%zz",
                                          "se=2025-01-14T16%3A15%3A46Z%00",
                                          "_jwt=",
                                          "_jwt=.",
                                          "_jwt=..",
                                          "_jwt=a.b.c",
                                          "_jwt=a.%3d%3d%3d%3d.c",
                                          "_jwt=x.!!!!.y",
                                          "Policy=",
                                          "Policy=_",
                                          "Policy=____",
                                          "Policy=%00",
                                          "Policy=a",
                                          "q-sign-time=",
                                          "q-sign-time=;",
                                          "q-sign-time=1736871346",
                                          "q-sign-time=1736871346;x",
                                          "authorization=",
                                          "authorization=bce-auth-v1/",
                                          "authorization=bce-auth-v1/k",
                                          "authorization=bce-auth-v1/k/",
                                          "authorization=bce-auth-v1/k/2025-01-14T15:15:46Z",
                                          "authorization=bce-auth-v1/k/x/3600/",
                                          "authorization=bce-auth-v1/k/2025-01-14T15:15:46Z/x/",
                                          "authorization=bce-auth-v1//////",
                                          "authorization=bce-auth-v2/k/2025-01-14T15:15:46Z/3600/"};
    assert_no_expiry(queries, NELEMS(queries));
}

TEST(values_of_any_length_are_harmless)
{
    static const char *const names[] = {"se",          "Expires",    "_jwt", "Policy", "authorization",
                                        "q-sign-time", "X-Amz-Date", "ex"};
    static const size_t lens[] = {1, 3, 4, 2044, 2045, 2046, 2047, 2048, 2049, 100000};
    char *value = xcalloc(100001, 1);
    for (size_t i = 0; i < NELEMS(names); i++) {
        for (size_t k = 0; k < NELEMS(lens); k++) {
            memset(value, i % 2 ? 'A' : '1', lens[k]);
            value[lens[k]] = '\0';
            char *query = xasprintf("%s=%s%s", names[i], strcmp(names[i], "_jwt") == 0 ? "." : "", value);
            assert_expiry(query, 0);
            free(query);
        }
    }
    free(value);
}

TEST(dates_are_parsed_with_their_time_zone)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } dates[] = {
        {"2025-01-14T15:15:46Z", 1736867746},
        {"2025-01-14T15:15:46.724124Z", 1736867746},
        {"2025-01-14T15:15:46", 1736867746},
        {"2025-01-14 15:15:46", 1736867746},
        {"2025-01-14 15:15:46.000", 1736867746},
        {"2025-01-14T23:15:46+08:00", 1736867746},
        {"2025-01-14T23:15:46.5+0800", 1736867746},
        {"2025-01-14T23:15:46+08", 1736867746},
        {"2025-01-14T10:15:46-05:00", 1736867746},
        {"2025-01-15T00:45:46+09:30", 1736867746},
        {"20250114T151546Z", 1736867746},
        {"2025-01-14T15:15:46+00:00", 1736867746},
        {"2024-02-29T00:00:00Z", 1709164800},
        {"2016-12-31T23:59:60Z", 1483228800},
        {"1970-01-01T00:00:00Z", 0},
        {"1969-12-31T23:59:59Z", 0},
        {"0000-00-00T00:00:00Z", 0},
    };
    for (size_t i = 0; i < NELEMS(dates); i++)
        assert_int_equal(iso8601_seconds(dates[i].text), dates[i].seconds);
}

TEST(malformed_date_is_rejected)
{
    static const char *const bad[] = {"",
                                      "2025",
                                      "2025-01-14T15",
                                      "x025-01-14T15:15:46Z",
                                      "2025/01/14T15:15:46Z",
                                      "2025-01-14T15:15:46+",
                                      "2025-01-14T15:15:46+0",
                                      "2025-01-14T15:15:46+08:0",
                                      "2025-01-14T15:15:46+08:000",
                                      "2025-01-14T15:15:46+99:00",
                                      "2025-01-14T15:15:46ZZ",
                                      "2025-01-14T15:15:46 Z",
                                      "2025-01-14X15:15:46Z",
                                      "2025-00-14T15:15:46Z",
                                      "2025-02-30T00:00:00Z",
                                      "2025-04-31T00:00:00Z",
                                      "-025-01-14T15:15:46Z",
                                      "20250114T151546",
                                      "20250114 151546Z",
                                      "2025011XT151546Z",
                                      "20251314T151546Z"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        if (iso8601_seconds(bad[i]) != 0)
            fail_msg("taken: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(azure_urls_expire_with_the_signature_or_its_key),
        cmocka_unit_test(amazon_volcano_and_google_urls_have_a_date_and_a_lifetime),
        cmocka_unit_test(aliyun_oss_has_three_signature_versions),
        cmocka_unit_test(cloudfront_urls_have_a_time_or_a_policy),
        cmocka_unit_test(runway_urls_have_a_token),
        cmocka_unit_test(other_schemes_are_recognized),
        cmocka_unit_test(earliest_expiry_wins),
        cmocka_unit_test(parameter_names_match_exactly_at_any_position),
        cmocka_unit_test(url_without_an_expiry_has_none),
        cmocka_unit_test(implausible_times_are_ignored),
        cmocka_unit_test(malformed_values_are_ignored),
        cmocka_unit_test(values_of_any_length_are_harmless),
        cmocka_unit_test(dates_are_parsed_with_their_time_zone),
        cmocka_unit_test(malformed_date_is_rejected),
    };
    return cmocka_run_group_tests_name("expiry", tests, NULL, NULL);
}
