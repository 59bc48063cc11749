/* headers: see headers.h. */
#include "upstream/headers.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/vault.h"

enum { JWT_SECONDS = 1800, JWT_RENEW_SECONDS = 1500, JWT_BACK_SECONDS = 5, JWT_MAX = 8192 };

/* ---- JSON web tokens ---- */

/* RFC 4648 with the URL's alphabet and no padding. */
static void add_base64url(struct buf *out, const void *data, size_t len)
{
    unsigned char text[2048];
    if (len > sizeof(text) / 4 * 3 - 3)
        abort(); /* our documents are shorter */
    int n = EVP_EncodeBlock(text, data, (int)len);
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (int i = 0; i < n; i++)
        buf_putc(out, (char)(text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]));
}

void jwt_renew(struct jwt *jwt, const char *key, int64_t now_s)
{
    static const char head[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    const char *secret = strchr(key, ':');
    bool current = now_s < jwt->renew_at && now_s >= jwt->renew_at - JWT_RENEW_SECONDS;
    if ((jwt->text != NULL && current) || secret == NULL || strlen(key) > 1024)
        return;
    struct buf claims, token;
    unsigned char signature[EVP_MAX_MD_SIZE];
    unsigned signature_len = 0;
    buf_init(&claims, JWT_MAX);
    buf_init_secret(&token, JWT_MAX);
    buf_puts(&claims, "{\"iss\":");
    buf_add_json_string(&claims, key, (size_t)(secret - key));
    buf_addf(&claims, ",\"exp\":%lld,\"nbf\":%lld}", (long long)now_s + JWT_SECONDS,
             (long long)now_s - JWT_BACK_SECONDS);
    add_base64url(&token, head, strlen(head));
    buf_putc(&token, '.');
    add_base64url(&token, claims.data, claims.len);
    HMAC(EVP_sha256(), secret + 1, (int)strlen(secret + 1), (unsigned char *)token.data, token.len, signature,
         &signature_len);
    buf_putc(&token, '.');
    add_base64url(&token, signature, signature_len);
    vault_free(jwt->text);
    *jwt = (struct jwt){.text = vault_strndup(token.data, token.len), .renew_at = now_s + JWT_RENEW_SECONDS};
    buf_done_secret(&token);
    buf_done(&claims);
}

void jwt_done(struct jwt *jwt)
{
    vault_free(jwt->text);
    *jwt = (struct jwt){0};
}

/* ---- lines ---- */

/* The value that follows may be secret, so it must not be formatted on the stack. */
static size_t begin_line(struct buf *lines, const char *name)
{
    size_t start = lines->len;
    buf_puts(lines, name);
    buf_puts(lines, ": ");
    return start;
}

/* Ends the line that begins at `start`, or removes it if it did not fit. */
static void end_line(struct buf *lines, size_t start)
{
    buf_putc(lines, '\0');
    if (lines->failed) {
        lines->len = start;
        lines->data[start] = '\0';
        lines->failed = false;
    }
}

void headers_add(struct buf *lines, const char *name, const char *value)
{
    size_t start = begin_line(lines, name);
    buf_puts(lines, value);
    end_line(lines, start);
}

static void add_uuid(struct buf *out)
{
    unsigned char random[16];
    char hex[33];
    random_bytes(random, sizeof(random));
    random[6] = (unsigned char)((random[6] & 0x0f) | 0x40); /* version 4 */
    random[8] = (unsigned char)((random[8] & 0x3f) | 0x80); /* of RFC 9562 */
    hex_encode(random, sizeof(random), hex);
    buf_addf(out, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static void add_token(struct buf *out, const char *key, struct jwt *jwt, int64_t now_s)
{
    jwt_renew(jwt, key, now_s);
    buf_puts(out, jwt->text ? jwt->text : "");
}

void headers_add_template(struct buf *lines, const char *name, const char *value, const char *key,
                          struct jwt *jwt, int64_t now_s)
{
    size_t start = begin_line(lines, name);
    for (const char *at = value; *at != '\0';) {
        if (strncmp(at, "{key}", 5) == 0) {
            buf_puts(lines, key);
            at += 5;
        } else if (jwt != NULL && strncmp(at, "{jwt}", 5) == 0) {
            add_token(lines, key, jwt, now_s);
            at += 5;
        } else if (jwt != NULL && strncmp(at, "{key-or-jwt}", 12) == 0) {
            if (strchr(key, ':') != NULL)
                add_token(lines, key, jwt, now_s);
            else
                buf_puts(lines, key);
            at += 12;
        } else if (strncmp(at, "{uuid}", 6) == 0) {
            add_uuid(lines);
            at += 6;
        } else {
            buf_putc(lines, *at++);
        }
    }
    end_line(lines, start);
}

void headers_add_secrets(const char *key, const struct jwt *jwt, struct secrets *secrets)
{
    const char *half = jwt->text ? strchr(key, ':') : NULL;
    const char *const all[] = {key, half ? half + 1 : NULL, half ? jwt->text : NULL};
    size_t n = 0;
    while (secrets->items[n] != NULL)
        n++;
    for (size_t i = 0; i < NELEMS(all) && all[i] != NULL; i++)
        secrets->items[n++] = all[i];
}
