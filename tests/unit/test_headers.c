/* Header lines from templates, and the signed token for Kling. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "upstream/headers.h"
#include "lib/json.h"

static const int64_t now_s = 1736867746;

static char *line_of(const char *value, const char *key, struct jwt *jwt)
{
    struct buf lines;
    buf_init_secret(&lines, HEADERS_MAX);
    headers_add_template(&lines, "X-Key", value, key, jwt, now_s);
    char *line = xstrdup(lines.data);
    assert_int_equal(lines.len, strlen(line) + 1);
    buf_done_secret(&lines);
    return line;
}

TEST(oversized_headers_are_omitted_and_the_rest_keep_their_order)
{
    static const char rest[] = "Accept: a{key}\0X-Key: sk-1\0"; /* the empty line at the end is its NUL */
    struct buf lines;
    char very_long[20000];
    memset(very_long, 'x', sizeof(very_long) - 1);
    very_long[sizeof(very_long) - 1] = '\0';
    buf_init_secret(&lines, HEADERS_MAX);
    assert_string_equal(lines.data, "");
    headers_add(&lines, "X-Long", very_long);
    assert_string_equal(lines.data, "");
    headers_add(&lines, "Accept", "a{key}");
    headers_add(&lines, "X-Long", very_long);
    headers_add_template(&lines, "X-Key", "{key}", "sk-1", NULL, now_s);
    headers_add(&lines, "X-Long", very_long);
    assert_int_equal(lines.len, sizeof(rest) - 1);
    assert_memory_equal(lines.data, rest, sizeof(rest));
    buf_done_secret(&lines);
}

TEST(template_is_filled_with_the_key)
{
    struct jwt jwt = {0};
    static const char *const cases[][2] = {{"Bearer {key}", "X-Key: Bearer sk-1"},
                                           {"{key}{key}", "X-Key: sk-1sk-1"},
                                           {"plain", "X-Key: plain"},
                                           {"{other} {key", "X-Key: {other} {key"},
                                           {"", "X-Key: "}};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        char *line = line_of(cases[i][0], "sk-1", &jwt);
        assert_string_equal(line, cases[i][1]);
        free(line);
    }
    assert_null(jwt.text);
}

TEST(key_or_jwt_is_the_key_unless_it_has_two_halves)
{
    struct jwt jwt = {0};
    char *line = line_of("Bearer {key-or-jwt}!", "sk-1", &jwt);
    assert_string_equal(line, "X-Key: Bearer sk-1!");
    assert_null(jwt.text);
    free(line);
    line = line_of("{key-or-jwt}", "access:secret", &jwt);
    assert_string_equal(line + strlen("X-Key: "), jwt.text);
    free(line);
    jwt_done(&jwt);
    line = line_of("{key-or-jwt}", "sk-1", NULL);
    assert_string_equal(line, "X-Key: {key-or-jwt}");
    free(line);
}

TEST(uuid_is_version_4_and_new_each_time)
{
    struct jwt jwt = {0};
    char *a = line_of("{uuid}", "sk-1", &jwt), *b = line_of("{uuid}", "sk-1", &jwt);
    assert_int_equal(strlen(a), 7 + 36);
    assert_string_not_equal(a, b);
    assert_int_equal(a[7 + 14], '4');
    assert_non_null(strchr("89ab", a[7 + 19]));
    free(a);
    free(b);
}

/* Decodes base64url without padding; NUL-terminated. */
static char *decoded(const char *text, size_t len)
{
    char *in = xcalloc(len + 4, 1), *out = xcalloc(len + 4, 1);
    for (size_t i = 0; i < len; i++)
        in[i] = (char)(text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i]);
    size_t padded = len;
    while (padded % 4 != 0)
        in[padded++] = '=';
    EVP_DecodeBlock((unsigned char *)out, (unsigned char *)in, (int)padded);
    free(in);
    return out;
}

TEST(token_is_signed_with_the_secret_half_and_names_the_other)
{
    struct jwt jwt = {0};
    jwt_renew(&jwt, "access\"key:the-secret", now_s);
    const char *payload = strchr(jwt.text, '.') + 1, *signature = strchr(payload, '.') + 1;
    char *claims = decoded(payload, (size_t)(signature - payload) - 1),
         *given = decoded(signature, strlen(signature));
    assert_string_equal(claims, "{\"iss\":\"access\\\"key\",\"exp\":1736869546,\"nbf\":1736867741}");
    unsigned char expected[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    HMAC(EVP_sha256(), "the-secret", 10, (const unsigned char *)jwt.text, (size_t)(signature - jwt.text) - 1,
         expected, &len);
    assert_int_equal(len, 32);
    assert_memory_equal(given, expected, 32);
    assert_null(strchr(jwt.text, '='));
    free(claims);
    free(given);
    jwt_done(&jwt);
    jwt_done(&jwt);
}

TEST(token_is_reused_until_shortly_before_it_expires)
{
    struct jwt jwt = {0};
    jwt_renew(&jwt, "access:secret", now_s);
    char *first = xstrdup(jwt.text);
    jwt_renew(&jwt, "access:secret", now_s + 1499);
    assert_string_equal(jwt.text, first);
    jwt_renew(&jwt, "access:secret", now_s + 1500);
    assert_string_not_equal(jwt.text, first);
    free(first);
    jwt_done(&jwt);
}

TEST(token_is_renewed_when_the_clock_is_set_back)
{
    struct jwt jwt = {0};
    jwt_renew(&jwt, "access:secret", now_s);
    char *first = xstrdup(jwt.text);
    jwt_renew(&jwt, "access:secret", now_s - 3600);
    assert_string_not_equal(jwt.text, first);
    free(first);
    jwt_done(&jwt);
}

TEST(key_without_two_halves_gives_no_token)
{
    struct jwt jwt = {0};
    char *line = line_of("Bearer {jwt}", "no-colon", &jwt);
    assert_string_equal(line, "X-Key: Bearer ");
    assert_null(jwt.text);
    free(line);
}

TEST(longest_key_with_escapes_gives_a_token)
{
    struct jwt jwt = {0};
    char key[514];
    memset(key, '"', sizeof(key) - 1);
    key[256] = ':';
    key[513] = '\0';
    jwt_renew(&jwt, key, now_s);
    assert_non_null(jwt.text);
    jwt_done(&jwt);
}

TEST(secrets_are_the_key_its_secret_half_and_the_token)
{
    struct jwt jwt = {0};
    struct secrets all = {0};
    headers_add_secrets("sk-1:x", &jwt, &all);
    assert_string_equal(all.items[0], "sk-1:x");
    assert_null(all.items[1]);
    jwt_renew(&jwt, "access:secret", now_s);
    headers_add_secrets("access:secret", &jwt, &all);
    assert_string_equal(all.items[1], "access:secret");
    assert_string_equal(all.items[2], "secret");
    assert_ptr_equal(all.items[3], jwt.text);
    assert_null(all.items[4]);
    jwt_done(&jwt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oversized_headers_are_omitted_and_the_rest_keep_their_order),
        cmocka_unit_test(template_is_filled_with_the_key),
        cmocka_unit_test(key_or_jwt_is_the_key_unless_it_has_two_halves),
        cmocka_unit_test(uuid_is_version_4_and_new_each_time),
        cmocka_unit_test(token_is_signed_with_the_secret_half_and_names_the_other),
        cmocka_unit_test(token_is_reused_until_shortly_before_it_expires),
        cmocka_unit_test(token_is_renewed_when_the_clock_is_set_back),
        cmocka_unit_test(key_without_two_halves_gives_no_token),
        cmocka_unit_test(longest_key_with_escapes_gives_a_token),
        cmocka_unit_test(secrets_are_the_key_its_secret_half_and_the_token),
    };
    return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
