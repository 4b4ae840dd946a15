<?php
// {{name}} is a function: the request's body is its input, and what it prints is
// the response. What it writes with error_log is in its log: baton logs {{name}}
$in = json_decode(file_get_contents('php://input'), true);
$name = is_array($in) && is_string($in['name'] ?? null) ? $in['name'] : 'world';
header('Content-Type: application/json');
echo json_encode(['message' => "Hello, $name", 'method' => $_SERVER['REQUEST_METHOD'] ?? '']), "\n";
