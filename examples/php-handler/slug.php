<?php
// A slug for a title. The file returns a callable: it is loaded once, and called for each request.
$replaced = ['ä' => 'ae', 'ö' => 'oe', 'ü' => 'ue', 'ß' => 'ss', 'é' => 'e', 'è' => 'e', 'å' => 'a', 'ø' => 'o'];
$calls = 0;

return function (array $event) use ($replaced, &$calls) {
    $title = strtr(trim($event['body']), $replaced);
    if ($title === '') {
        return ['statusCode' => 422, 'body' => ['error' => 'the body is the title']];
    }
    $slug = trim(preg_replace('/[^a-z0-9]+/', '-', strtolower($title)), '-');

    return [
        'statusCode' => 200,
        'headers' => ['Content-Type' => 'text/plain', 'X-Calls' => (string) ++$calls],
        'body' => $slug . ($event['queryStringParameters']['suffix'] ?? ''),
    ];
};
