<?php
// The job of taskproxy in PHP: checks the token, answers from Redis, and queries the upstream once for all requests that wait for
// a task. PHP-FPM runs this file for each request; only the connection to Redis is kept.

const POLL_SECONDS = 2;
const ENDED_SECONDS = 86400;
const LOCK_MS = 10000;
const PATIENCE_SECONDS = 5;

const CODING = ['duration_secs' => 1, 'height' => 1, 'path' => 1, 'size' => 1, 'width' => 1];
const KEPT = ['code' => 1, 'message' => 1, 'data' => [
    'task_id' => 1, 'action' => 1, 'status' => 1, 'fail_reason' => 1, 'submit_time' => 1, 'start_time' => 1, 'finish_time' => 1,
    'progress' => 1,
    'data' => [
        'created_at' => 1, 'estimated_queue_wait_time' => 1, 'failure_reason' => 1,
        'generations' => [
            'created_at' => 1,
            'encodings' => ['ld' => CODING, 'md' => CODING, 'source' => CODING, 'spritesheet' => ['path' => 1],
                            'thumbnail' => ['path' => 1]],
            'height' => 1, 'id' => 1, 'model' => 1, 'n_frames' => 1, 'prompt' => 1, 'seed' => 1, 'task_id' => 1, 'title' => 1,
            'url' => 1, 'width' => 1],
        'height' => 1, 'id' => 1, 'model' => 1, 'n_frames' => 1, 'n_variants' => 1, 'progress_pct' => 1,
        'progress_pos_in_queue' => 1, 'prompt' => 1, 'status' => 1, 'style' => 1, 'title' => 1, 'type' => 1, 'width' => 1]]];

function trim_view($value, $kept)
{
    if (is_array($value)) {
        return array_map(fn ($element) => trim_view($element, $kept), $value);
    }
    if (!is_object($value)) {
        return $value;
    }
    $view = new stdClass();
    foreach ($value as $name => $member) {
        if (isset($kept[$name])) {
            $view->$name = trim_view($member, $kept[$name]);
        }
    }
    return $view;
}

/** The new view, with its ETag and times; null if the upstream fails. */
function query_upstream(string $task): ?array
{
    $options = ['http' => ['header' => 'Authorization: Bearer ' . getenv('PEER_KEY'), 'timeout' => 10]];
    $text = @file_get_contents(getenv('PEER_UPSTREAM') . "/sora/v1/videos/$task", false, stream_context_create($options));
    $document = $text === false ? null : json_decode($text);
    if (($document->code ?? '') !== 'success') {
        return null;
    }
    $body = json_encode(trim_view($document, KEPT), JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
    $ended = in_array($document->data->status, ['SUCCESS', 'FAILURE'], true);
    return ['etag' => '"' . substr(hash('sha256', $body), 0, 32) . '"', 'fetched' => time(),
            'seconds' => $ended ? ENDED_SECONDS : POLL_SECONDS, 'body' => $body];
}

function look(Redis $redis, string $task): ?array
{
    $kept = $redis->get("php:$task");
    return $kept === false ? null : array_combine(['etag', 'fetched', 'seconds', 'body'], explode(' ', $kept, 4));
}

/** One request queries the upstream; the others look into Redis until it has the view. */
function fetch_once(Redis $redis, string $task): ?array
{
    $deadline = microtime(true) + PATIENCE_SECONDS;
    while (!$redis->set("php:lock:$task", 1, ['nx', 'px' => LOCK_MS])) {
        usleep(2000);
        $view = look($redis, $task);
        if ($view || microtime(true) > $deadline) {
            return $view;
        }
    }
    $view = query_upstream($task);
    if ($view) {
        $redis->setex("php:$task", $view['seconds'], implode(' ', $view));
    }
    $redis->del("php:lock:$task");
    return $view;
}

function send(array $view, string $how): void
{
    $age = time() - (int)$view['fetched'];
    $left = (int)$view['seconds'] - $age;
    header('Content-Type: application/json');
    header('X-Request-Id: ' . $_SERVER['REQUEST_ID']);
    header('X-Content-Type-Options: nosniff');
    header('Cache-Status: peer; ' . ($how === 'HIT' ? "hit; ttl=$left" : 'fwd=miss; stored'));
    header("X-Cache: $how");
    header("Age: $age");
    header('Cache-Control: private, ' . ($view['seconds'] > POLL_SECONDS ? "max-age=$left" : 'no-cache'));
    if ($view['seconds'] <= POLL_SECONDS) {
        header('Retry-After: ' . POLL_SECONDS);
    }
    header("ETag: {$view['etag']}");
    header('Vary: Accept, Prefer, Origin, Authorization');
    if (($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === $view['etag']) {
        http_response_code(304);
        return;
    }
    header('Content-Length: ' . strlen($view['body']));
    echo $view['body'];
}

$digest = hash('sha256', getenv('PEER_TOKEN'));
$authorization = $_SERVER['HTTP_AUTHORIZATION'] ?? '';
if (!str_starts_with($authorization, 'Bearer ') || !hash_equals($digest, hash('sha256', substr($authorization, 7)))) {
    http_response_code(401);
    exit;
}
$redis = new Redis();
$redis->pconnect(getenv('PEER_REDIS'));
$view = look($redis, $_SERVER['TASK']);
$how = $view ? 'HIT' : 'MISS';
$view ??= fetch_once($redis, $_SERVER['TASK']);
if ($view) {
    send($view, $how);
} else {
    http_response_code(502);
}
