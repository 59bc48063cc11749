/* pattern: see pattern.h. */
#include "config/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

/* "a-z" or "a"; returns the number of characters read. */
static size_t add_range(bool class[static 256], const char *text)
{
    unsigned char first = (unsigned char)text[0];
    bool range = text[1] == '-' && text[2] != ']' && text[2] != '\0';
    unsigned char last = range ? (unsigned char)text[2] : first;
    for (int c = first; c <= last; c++)
        class[c] = true;
    return range ? 3 : 1;
}

/* Reads "[...]{m,n}" or "[...]{n}" with a simple character class; false for any other expression. */
static bool read_simple(struct grammar *grammar, const char *regex)
{
    const char *at = regex + 1;
    if (regex[0] != '[' || strchr("^]", regex[1]) != NULL || strpbrk(regex, "\\:.=()|") != NULL)
        return false;
    while (*at != ']' && *at != '\0')
        at += add_range(grammar->class, at);
    int end = 0;
    if (sscanf(at, "]{%zu,%zu}%n", &grammar->min, &grammar->max, &end) == 2 && end > 0)
        return at[end] == '\0';
    bool one = sscanf(at, "]{%zu}%n", &grammar->min, &end) == 1 && end > 0 && at[end] == '\0';
    grammar->max = grammar->min;
    return one;
}

static bool takes_simple(const struct grammar *grammar, const char *value)
{
    size_t len = 0;
    for (; value[len] != '\0'; len++) {
        if (!grammar->class[(unsigned char)value[len]])
            return false;
    }
    return len >= grammar->min && len <= grammar->max;
}

int grammar_init(struct grammar *grammar, const char *name, const char *regex)
{
    char *whole = xasprintf("^(%s)$", regex);
    int error = regcomp(&grammar->regex, whole, REG_EXTENDED | REG_NOSUB);
    free(whole);
    if (error != 0)
        return -1;
    grammar->name = xstrdup(name);
    grammar->simple = read_simple(grammar, regex);
    return 0;
}

void grammar_done(struct grammar *grammar)
{
    if (grammar->name != NULL)
        regfree(&grammar->regex);
    free(grammar->name);
    grammar->name = NULL;
}

bool grammar_takes(const struct grammar *grammar, const char *value)
{
    /* Dot segments lead to other resources of the upstream, and percent-encoding does not change that. */
    if (strchr(value, '/') != NULL || strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
        return false;
    return grammar->simple ? takes_simple(grammar, value) : regexec(&grammar->regex, value, 0, NULL, 0) == 0;
}

/* ---- percent-encoding and queries ---- */

int percent_decode(const char *text, size_t len, char *out, size_t size)
{
    const char *end = text + len;
    for (; text < end; text++) {
        char c = *text;
        if (c == '%') {
            int high = end - text > 2 ? OPENSSL_hexchar2int((unsigned char)text[1]) : -1;
            int low = high >= 0 ? OPENSSL_hexchar2int((unsigned char)text[2]) : -1;
            if (low < 0)
                return -1;
            c = (char)(high * 16 + low);
            text += 2;
        }
        if (c == '\0' || size < 2)
            return -1;
        *out++ = c;
        size--;
    }
    *out = '\0';
    return 0;
}

bool query_value(const char *query, const char *name, char *out, size_t size)
{
    size_t name_len = strlen(name), found = 0;
    for (const char *at = query; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, "&");
        if (len > name_len && at[name_len] == '=' && memcmp(at, name, name_len) == 0) {
            found++;
            if (percent_decode(at + name_len + 1, len - name_len - 1, out, size) < 0)
                return false;
        }
        at += len + (at[len] == '&');
    }
    return found == 1;
}

/* ---- making a pattern ---- */

/* Takes "{name}" or a literal as the pattern's next part. */
static const char *add_part(struct pattern *pattern, const char *text, size_t len,
                            const struct grammar *grammars, size_t n_grammars)
{
    if (pattern->n_parts == PATTERN_PARTS)
        return "has too many parts";
    struct pattern_part *part = &pattern->parts[pattern->n_parts++];
    if (text[0] != '{') {
        part->literal = xstrndup(text, len);
        return strpbrk(part->literal, "{}%&#")
                   ? "may contain variables only as a whole part, such as /{task_id}/"
                   : NULL;
    }
    if (pattern->n_variables == PATTERN_VARIABLES)
        return "has more than 4 variables";
    for (size_t i = 0; i < n_grammars; i++) {
        const char *name = grammars[i].name;
        if (strlen(name) + 2 == len && text[len - 1] == '}' && memcmp(text + 1, name, len - 2) == 0)
            part->grammar = &grammars[i];
    }
    if (part->grammar == NULL)
        return "names a variable that is neither \"task_id\" nor in \"variables\"";
    if (pattern_has_variable(pattern, part->grammar->name))
        return "names a variable twice";
    pattern->variables[pattern->n_variables++] = part->grammar;
    return NULL;
}

static const char *add_query(struct pattern *pattern, const char *query, const struct grammar *grammars,
                             size_t n_grammars)
{
    const char *why = NULL;
    while (why == NULL && *query != '\0') {
        size_t len = strcspn(query, "&"), name_len = strcspn(query, "=");
        if (name_len == 0 || name_len >= len)
            return "has a query that is not name=value&name=value";
        why = add_part(pattern, query + name_len + 1, len - name_len - 1, grammars, n_grammars);
        if (why == NULL)
            pattern->parts[pattern->n_parts - 1].query_name = xstrndup(query, name_len);
        query += len + (query[len] == '&');
    }
    return why;
}

int pattern_init(struct pattern *pattern, const char *text, const struct grammar *grammars, size_t n_grammars,
                 const char **ret_why)
{
    *pattern = (struct pattern){.text = xstrdup(text)};
    const char *why = text[0] == '/' ? NULL : "must begin with '/'";
    while (why == NULL && *text == '/') {
        size_t len = strcspn(++text, "/?");
        why = add_part(pattern, text, len, grammars, n_grammars);
        text += len;
    }
    if (why == NULL && *text == '?')
        why = add_query(pattern, text + 1, grammars, n_grammars);
    if (why == NULL && pattern->n_variables == 0)
        why = "contains no variable";
    *ret_why = why;
    return why == NULL ? 0 : -1;
}

void pattern_done(struct pattern *pattern)
{
    for (size_t i = 0; i < pattern->n_parts; i++) {
        free(pattern->parts[i].literal);
        free(pattern->parts[i].query_name);
    }
    free(pattern->text);
    *pattern = (struct pattern){0};
}

/* ---- matching and building ---- */

/* Appends the value to the id if it matches its grammar and fits. */
static bool take_value(const struct pattern_part *part, const char *value, char *id)
{
    size_t used = strlen(id), len = strlen(value);
    if (!grammar_takes(part->grammar, value) || used + len + 2 > TASK_ID_MAX)
        return false;
    if (used > 0)
        id[used++] = '/';
    memcpy(id + used, value, len + 1);
    return true;
}

/* Literals are compared first: a path with another literal is another path, whatever its values are. */
static enum pattern_match match_path(const struct pattern *pattern, const char *path, char *id)
{
    char value[TASK_ID_MAX];
    bool bad = false;
    for (size_t i = 0; i < pattern->n_parts; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        if (part->query_name != NULL)
            continue;
        if (*path++ != '/')
            return PATTERN_OTHER;
        size_t len = strcspn(path, "/");
        if (part->literal != NULL && (strlen(part->literal) != len || memcmp(part->literal, path, len) != 0))
            return PATTERN_OTHER;
        if (part->grammar != NULL && !bad)
            bad = percent_decode(path, len, value, sizeof(value)) < 0 || !take_value(part, value, id);
        path += len;
    }
    if (*path != '\0')
        return PATTERN_OTHER;
    return bad ? PATTERN_BAD_ID : PATTERN_MATCHES;
}

enum pattern_match pattern_match(const struct pattern *pattern, const char *path, const char *query, char *id)
{
    char value[TASK_ID_MAX];
    id[0] = '\0';
    enum pattern_match match = match_path(pattern, path, id);
    for (size_t i = 0; i < pattern->n_parts && match == PATTERN_MATCHES; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        if (part->query_name == NULL || part->grammar == NULL)
            continue;
        if (!query_value(query, part->query_name, value, sizeof(value)) || !take_value(part, value, id))
            match = PATTERN_BAD_ID;
    }
    return match;
}

/* The n-th value of an id; false if there are fewer. */
static bool id_value(const char *id, size_t n, char *out, size_t size)
{
    while (n-- > 0) {
        id = strchr(id, '/');
        if (id++ == NULL)
            return false;
    }
    size_t len = strcspn(id, "/");
    if (len >= size)
        return false;
    memcpy(out, id, len);
    out[len] = '\0';
    return true;
}

/* The index of the variable with that name, or -1. */
static int variable_index(const struct pattern *pattern, const char *name)
{
    for (size_t i = 0; i < pattern->n_variables; i++) {
        if (strcmp(pattern->variables[i]->name, name) == 0)
            return (int)i;
    }
    return -1;
}

bool pattern_same_variables(const struct pattern *a, const struct pattern *b)
{
    return a->n_variables == b->n_variables && memcmp(a->variables, b->variables, sizeof(a->variables)) == 0;
}

bool pattern_has_variable(const struct pattern *pattern, const char *name)
{
    return variable_index(pattern, name) >= 0;
}

bool pattern_variable(const struct pattern *pattern, const char *name, const char *id, char *out, size_t size)
{
    int index = variable_index(pattern, name);
    return index >= 0 && id_value(id, (size_t)index, out, size);
}

bool pattern_takes_id(const struct pattern *pattern, const char *id)
{
    char value[TASK_ID_MAX];
    for (size_t i = 0; i < pattern->n_variables; i++) {
        if (!id_value(id, i, value, sizeof(value)) || !grammar_takes(pattern->variables[i], value))
            return false;
    }
    return !id_value(id, pattern->n_variables, value, sizeof(value));
}

void pattern_build(const struct pattern *pattern, const char *id, struct buf *out)
{
    char value[TASK_ID_MAX];
    size_t n = 0;
    const char *query_mark = "?";
    for (size_t i = 0; i < pattern->n_parts; i++) {
        const struct pattern_part *part = &pattern->parts[i];
        if (part->query_name == NULL) {
            buf_putc(out, '/');
        } else {
            buf_addf(out, "%s%s=", query_mark, part->query_name);
            query_mark = "&";
        }
        if (part->literal != NULL)
            buf_puts(out, part->literal);
        else if (id_value(id, n++, value, sizeof(value)))
            buf_add_percent(out, value);
    }
}
