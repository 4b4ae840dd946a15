<?php
// An order's total. The body is php://stdin, what is printed is the response.
require 'lib/money.php';

$order = json_decode(file_get_contents('php://stdin'), true);
if (!is_array($order) || !isset($order['items'])) {
    http_response_code(400);
    echo json_encode(['error' => 'want {"items": [{"price": 1.5, "count": 2}]}']);
    exit;
}
$total = 0;
foreach ($order['items'] as $item) {
    $total += $item['price'] * ($item['count'] ?? 1);
}
echo json_encode(['total' => money($total, $_GET['currency'] ?? 'EUR'), 'items' => count($order['items'])]);
